"""How good a judge is: benchmarks, the figures of their sources and stricter ones, bias, calibration."""
