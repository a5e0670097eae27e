// What launcher.h needs to launch kernels in the emulated build, and kernels to be compiled.
#pragma once
#include "device.h"
#include "executor.h"
