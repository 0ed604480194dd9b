"""What privacy costs in accuracy: tuning on synthetic data, then two studies on mnist5k."""
