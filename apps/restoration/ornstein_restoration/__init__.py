"""Image restoration with residual-shifting diffusion models: UPSR, ResShift, Resfusion and RDDM."""
