"""The Open Inference Protocol over gRPC: the same tensors, queue and refusals as over HTTP."""
