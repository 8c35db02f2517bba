// Instead of a device and its stream: nothing.

#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/tensor.h>

namespace propulsion {

class DeviceStream {
 public:
  explicit DeviceStream(const torch::stable::Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
};

}  // namespace propulsion
