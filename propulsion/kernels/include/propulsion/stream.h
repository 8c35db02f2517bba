// Where a kernel runs: the device of a tensor and torch's current stream there.

#pragma once

#include <cuda_runtime.h>
#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>

namespace propulsion {

// While it lives the tensor's device is the current one.
class DeviceStream {
 public:
  explicit DeviceStream(const torch::stable::Tensor& tensor)
      : guard_(tensor.get_device_index()), stream_(current(tensor.get_device_index())) {}

  cudaStream_t stream() const { return stream_; }

 private:
  // libtorch_cuda is looked up and not linked, so that one library loads beside any build of torch,
  // also one for CPUs alone, and can be built there.
  static cudaStream_t current(int32_t device) {
    using CurrentStream = int32_t (*)(int32_t, void**);
    static const auto get = reinterpret_cast<CurrentStream>(
        dlsym(dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD),
              "aoti_torch_get_current_cuda_stream"));
    STD_TORCH_CHECK(get != nullptr, "propulsion: this build of torch has no CUDA");
    void* stream = nullptr;
    STD_TORCH_CHECK(get(device, &stream) == 0, "propulsion: torch has no stream for the device");
    return static_cast<cudaStream_t>(stream);
  }

  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

}  // namespace propulsion
