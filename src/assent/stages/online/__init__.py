"""What the stage of reinforcement learning is put together from: one file, one part."""
