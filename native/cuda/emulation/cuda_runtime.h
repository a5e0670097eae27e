// What nvcc includes of itself, for the emulated build: the runtime API and the language of kernels.
#pragma once
#include "cuda_runtime_api.h"
#include "device.h"
#include "executor.h"
