"""Starting runs elsewhere: Cloud TPU VMs, GKE, Slurm, or many processes of this machine. See docs/launch.md."""
