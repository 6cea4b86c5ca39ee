__version__ = "0.1.0"

from pathlib import Path as _Path

from btc_hedge_rl.ground.caches import find_caches, one_blas_thread

find_caches(_Path(__file__).parent)     # before anything compiles
one_blas_thread()

from gymnasium.envs.registration import register, registry

for _task in ("DeltaHedging", "OptionHedging"):
    if f"BtcHedge/{_task}-v0" not in registry:
        register(f"BtcHedge/{_task}-v0", entry_point=f"btc_hedge_rl.envs:{_task}Env",
                 vector_entry_point=f"btc_hedge_rl.envs:{_task}VectorEnv")
