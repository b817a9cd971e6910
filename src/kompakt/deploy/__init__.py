"""From an artifact to what a server reads."""

from kompakt.deploy.triton import Deployment, Step, TritonOptions, deploy_triton

__all__ = ["Deployment", "Step", "TritonOptions", "deploy_triton"]
