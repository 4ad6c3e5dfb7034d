"""Questions, labels and the people, real or simulated, who give them; never imports torch."""
