// The addon's face to JavaScript: handles, errors and promises; no arithmetic. lib/native.ts is its only
// caller and holds its one type.
//
// An op is called by writing its arguments as doubles into a shared buffer and calling invoke(op, count): one
// crossing, no objects. Outputs come back in the same buffer as (handle, dtype, rank, dimensions...).
#include <napi.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "binding/memory_report.h"
#include "core/context.h"
#include "cpu/kernels.h"
#include "cpu/processor.h"
#include "cuda/cuda.h"
#include "ops/memory.h"
#include "ops/op.h"

namespace isopolicy {
namespace {

constexpr size_t kBufferLength = 512;
constexpr size_t kSequenceSlot =
    kBufferLength - 1;  // where invoke leaves the number of the last queued command

struct Addon;

// One read: the buffers that the native threads fill, and the promise that the last of them then settles.
struct Read {
  Addon* addon;
  napi_deferred deferred;
  std::vector<napi_ref> buffers;
  std::atomic<int> fences{0};  // still to be reached
  std::mutex mutex;
  std::optional<StreamFailure> failure;  // the first of the devices'
};

struct Addon {
  explicit Addon(napi_env env) : env(env), context(Drivers{{cpuDriver(), cuda::driver()}}) {}
  napi_env env;
  Context context;
  double* buffer = nullptr;
  napi_ref bufferReference = nullptr;
  napi_threadsafe_function settle = nullptr;
  int pendingReads = 0;
  MemoryReport memoryReport;
  std::map<uint32_t, std::shared_ptr<Recording>> recordings;
  uint32_t nextRecording = 1;
  std::string errorKind;
  std::string errorMessage;

  void reportMemory() {
    int64_t bytes = 0;
    for (const Device device : {Device::cpu, Device::cuda})
      if (const DeviceState* state = context.ifUsed(device)) bytes += state->allocator.use().bytes;
    const int64_t change = memoryReport.due(bytes);
    if (change == 0) return;
    int64_t total;
    napi_adjust_external_memory(env, change, &total);
  }
  // -1 tells lib/native.ts to fetch the error, which it throws at the call.
  template <class Body>
  double guarded(Body body) {
    try {
      return body();
    } catch (const InvalidArgument& error) {
      errorKind = "invalid";
      errorMessage = error.what();
    } catch (const DeviceError& error) {
      errorKind = "device";
      errorMessage = error.what();
    } catch (const std::exception& error) {
      errorKind = "internal";
      errorMessage = error.what();
    }
    return -1;
  }
};

Addon& addonOf(napi_env env) {
  void* data = nullptr;
  napi_get_instance_data(env, &data);
  return *static_cast<Addon*>(data);
}

Napi::Value number(Napi::Env env, double x) { return Napi::Number::New(env, x); }

double argument(const Napi::CallbackInfo& info, size_t index) {
  return info[index].IsNumber() ? info[index].As<Napi::Number>().DoubleValue() : NAN;
}

// invoke(op, argumentCount) -> number of outputs, or -1
napi_value invoke(napi_env env, napi_callback_info info) {
  size_t count = 2;
  napi_value values[2];
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  uint32_t op = 0, arguments = 0;
  napi_get_value_uint32(env, values[0], &op);
  napi_get_value_uint32(env, values[1], &arguments);
  Addon& addon = addonOf(env);
  const double result = addon.guarded([&]() -> double {
    if (op >= uint32_t(kOpCount) || arguments >= kBufferLength)
      expected("invoke", "an op that exists", std::to_string(op));
    double input[kBufferLength];
    std::memcpy(input, addon.buffer, arguments * sizeof(double));
    OpCall call(addon.context, kOps[op].name, input, int(arguments), addon.buffer);
    try {
      kOps[op].call(call);
      if (call.remaining() != 0) call.fail("no further arguments", std::to_string(call.remaining()));
    } catch (...) {
      call.discardOutputs();
      throw;
    }
    addon.buffer[kSequenceSlot] = double(addon.context.sequence());
    return call.outputs();
  });
  addon.reportMemory();
  napi_value out;
  napi_create_int32(env, int32_t(result), &out);
  return out;
}

// takeError() -> { kind, message }
Napi::Value takeError(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  auto out = Napi::Object::New(info.Env());
  out.Set("kind", addon.errorKind);
  out.Set("message", addon.errorMessage);
  return out;
}

// dispose(handle); a tensor that was disposed of already stays so
napi_value dispose(napi_env env, napi_callback_info info) {
  size_t count = 1;
  napi_value value;
  napi_get_cb_info(env, info, &count, &value, nullptr, nullptr);
  double handle = 0;
  napi_get_value_double(env, value, &handle);
  Addon& addon = addonOf(env);
  addon.context.tensors.remove(handle);
  addon.reportMemory();
  return nullptr;
}

// upload(handle, typedArray) -> 0 or -1; the data is copied before the call returns
Napi::Value upload(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    const Tensor* t = addon.context.tensors.find(argument(info, 0));
    if (t == nullptr) expected("upload", "a live tensor", "a tensor that was disposed of");
    if (!info[1].IsTypedArray()) expected("upload", "data to be a typed array", "something else");
    if (addon.context.recording()) expected("upload", "no upload while recording", "one");
    const auto view = info[1].As<Napi::TypedArray>();
    if (view.ByteLength() != t->bytes())
      expected("upload", std::to_string(t->bytes()) + " bytes for " + t->text(),
               std::to_string(view.ByteLength()));
    if (t->bytes() == 0) return 0;
    const char* data = static_cast<const char*>(view.ArrayBuffer().Data()) + view.ByteOffset();
    auto staged = std::make_shared<std::vector<char>>(data, data + view.ByteLength());
    addon.context.on(t->device).stream.enqueue(
        "upload",
        Registry::instance().find<UploadArgs>("upload", Family::shared, t->device, addon.context.vectorLevel),
        UploadArgs{staged->data(), t->data(), staged->size()}, staged);
    return 0;
  }));
}

void settlePromise(napi_env env, const Read& read) {
  if (read.failure) {
    auto error = Napi::Object::New(env);
    error.Set("message", read.failure->message);
    error.Set("sequence", double(read.failure->sequence));
    napi_reject_deferred(env, read.deferred, error);
    return;
  }
  auto buffers = Napi::Array::New(env, read.buffers.size());
  for (size_t i = 0; i < read.buffers.size(); i++) {
    napi_value buffer;
    napi_get_reference_value(env, read.buffers[i], &buffer);
    buffers[uint32_t(i)] = Napi::Value(env, buffer);
  }
  napi_resolve_deferred(env, read.deferred, buffers);
}

void settleRead(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<std::shared_ptr<Read>> held(static_cast<std::shared_ptr<Read>*>(data));
  Read* const read = held->get();
  if (env == nullptr) return;  // the environment is going away
  Addon& addon = *read->addon;
  napi_handle_scope scope;
  napi_open_handle_scope(env, &scope);
  if (--addon.pendingReads == 0) napi_unref_threadsafe_function(env, addon.settle);
  if (read->failure)
    for (const Device device : {Device::cpu, Device::cuda})
      if (DeviceState* state = addon.context.ifUsed(device))
        state->stream.acknowledgeFailure(read->failure->sequence);
  // A worker that is being terminated refuses new values; no exception may leave this callback.
  try {
    settlePromise(env, *read);
  } catch (const Napi::Error&) {
  }
  for (napi_ref reference : read->buffers) napi_delete_reference(env, reference);
  napi_close_handle_scope(env, scope);
}

// read(...handles) -> Promise<ArrayBuffer[]>, or -1. Waits for the devices of the tensors, or for all where
// there are none.
Napi::Value read(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  napi_env env = info.Env();
  napi_value promise = nullptr;
  const double status = addon.guarded([&]() -> double {
    std::vector<HostCopy> copies[kDevices];
    std::vector<Device> devices;
    std::vector<std::pair<Device, size_t>> places;
    const auto uses = [&](Device device) {
      if (std::find(devices.begin(), devices.end(), device) == devices.end()) devices.push_back(device);
    };
    for (size_t i = 0; i < info.Length(); i++) {
      const Tensor* t = addon.context.tensors.find(argument(info, i));
      if (t == nullptr) expected("read", "a live tensor", "a tensor that was disposed of");
      auto& list = copies[size_t(t->device)];
      places.push_back({t->device, list.size()});
      list.push_back({nullptr, t->data(), t->bytes()});
      uses(t->device);
    }
    if (addon.context.recording()) expected("read", "no read while recording", "one");
    if (devices.empty())
      for (const Device device : {Device::cpu, Device::cuda})
        if (addon.context.ifUsed(device)) uses(device);
    if (devices.empty()) uses(addon.context.device);
    auto request = std::make_shared<Read>();
    request->addon = &addon;
    for (const auto& [device, index] : places) {
      HostCopy& copy = copies[size_t(device)][index];
      napi_value buffer;
      if (napi_create_arraybuffer(env, copy.bytes, &copy.to, &buffer) != napi_ok)
        throw DeviceError("[read] out of memory: asked for " + std::to_string(copy.bytes) + " bytes");
      napi_ref reference;
      napi_create_reference(env, buffer, 1, &reference);
      request->buffers.push_back(reference);
    }
    std::vector<Stream*> streams;
    for (const Device device : devices) streams.push_back(&addon.context.on(device).stream);
    napi_create_promise(env, &request->deferred, &promise);
    if (addon.pendingReads++ == 0) napi_ref_threadsafe_function(env, addon.settle);
    napi_threadsafe_function settle = addon.settle;
    request->fences = int(devices.size());
    for (size_t i = 0; i < devices.size(); i++) {
      streams[i]->fence(std::move(copies[size_t(devices[i])]),
                        [request, settle](const StreamFailure* failure) {
                          if (failure) {
                            std::lock_guard<std::mutex> lock(request->mutex);
                            if (!request->failure) request->failure = *failure;
                          }
                          if (--request->fences > 0) return;
                          auto* held = new std::shared_ptr<Read>(request);
                          // Refused where the environment is going away.
                          if (napi_call_threadsafe_function(settle, held, napi_tsfn_nonblocking) != napi_ok)
                            delete held;
                        });
    }
    return 0;
  });
  if (status < 0) return number(env, -1);
  return Napi::Value(env, promise);
}

Napi::Value beginRecording(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    if (addon.context.recording()) expected("record", "one recording at a time", "a second one");
    addon.context.on(addon.context.device).stream.beginRecording();
    return 0;
  }));
}

// endRecording() -> id of the recording
Napi::Value endRecording(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    Stream* recording = addon.context.recording();
    if (recording == nullptr) expected("record", "a recording to end", "none");
    addon.recordings[addon.nextRecording] = recording->endRecording();
    return double(addon.nextRecording++);
  }));
}

Napi::Value replay(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    const auto it = addon.recordings.find(uint32_t(argument(info, 0)));
    if (it == addon.recordings.end()) expected("replay", "a live recording", "one that was disposed of");
    if (addon.context.recording()) expected("replay", "no replay while recording", "one");
    addon.context.on(it->second->device).stream.replay(it->second);
    return double(addon.context.sequence());
  }));
}

Napi::Value disposeRecording(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  const auto it = addon.recordings.find(uint32_t(argument(info, 0)));
  if (it == addon.recordings.end()) return Napi::Boolean::New(info.Env(), false);
  addon.context.releaseRecording(*it->second);
  addon.recordings.erase(it);
  addon.reportMemory();
  return Napi::Boolean::New(info.Env(), true);
}

// The device that an argument names, or the one in use.
Device deviceArgument(const Addon& addon, const Napi::Value& value) {
  return value.IsUndefined() ? addon.context.device : parseDevice(value.ToString().Utf8Value());
}

// memory(device?) -> { tensors, bytes, cachedBytes, peakBytes }
Napi::Value memory(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  MemoryUse use;
  const Device device = deviceArgument(addon, info[0]);
  const DeviceState* used = addon.context.ifUsed(device);
  if (used != nullptr) use = used->allocator.use();
  auto out = Napi::Object::New(info.Env());
  out.Set("tensors", double(addon.context.tensors.live(device)));
  out.Set("bytes", double(use.bytes));
  out.Set("cachedBytes", double(use.cachedBytes));
  out.Set("peakBytes", double(use.peakBytes));
  return out;
}

// freeMemory() -> bytes that the device in use still has; null where nobody knows
Napi::Value freeMemory(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  const DeviceState* used = addon.context.ifUsed(addon.context.device);
  const double free = used == nullptr ? -1 : used->source.freeBytes();
  return free < 0 ? info.Env().Null() : number(info.Env(), free);
}

// trim(): cached memory goes back to the system
Napi::Value trim(const Napi::CallbackInfo& info) {
  for (const Device device : {Device::cpu, Device::cuda}) addonOf(info.Env()).context.trim(device);
  return info.Env().Undefined();
}

// setDevice(name): where tensors are made that have no other tensor to follow
Napi::Value setDevice(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    const Device device = parseDevice(info[0].ToString().Utf8Value());
    addon.context.on(device);  // fails here where it cannot be used
    addon.context.device = device;
    return 0;
  }));
}

Napi::Value setThreads(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    const double threads = argument(info, 0);
    if (!(threads >= 1 && threads <= 256 && threads == double(int(threads))))
      expected("setThreads", "threads to be an integer from 1 to 256", std::to_string(threads));
    addon.context.setThreads(int(threads));
    return 0;
  }));
}

Napi::Value setVectorLevel(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    addon.context.vectorLevel = parseVectorLevel(info[0].ToString().Utf8Value());
    return 0;
  }));
}

// setProfiling(on)
Napi::Value setProfiling(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  return number(info.Env(), addon.guarded([&]() -> double {
    addon.context.on(addon.context.device).stream.setProfiling(info[0].ToBoolean().Value());
    return 0;
  }));
}

// profile() -> { nanoseconds, ops: [{ op, calls, nanoseconds }] }, after a read that followed
// setProfiling(false)
Napi::Value profile(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  const Profile& profile = addon.context.on(addon.context.device).stream.profile();
  auto list = Napi::Array::New(info.Env(), profile.ops().size());
  for (uint32_t i = 0; i < profile.ops().size(); i++) {
    const OpTime& time = profile.ops()[i];
    auto entry = Napi::Object::New(info.Env());
    entry.Set("op", time.op);
    entry.Set("calls", double(time.calls));
    entry.Set("nanoseconds", double(time.nanoseconds));
    list[i] = entry;
  }
  auto out = Napi::Object::New(info.Env());
  out.Set("nanoseconds", double(profile.elapsedNanoseconds()));
  out.Set("ops", list);
  return out;
}

// info() -> the build and the machine as the addon sees them
Napi::Value describe(const Napi::CallbackInfo& info) {
  Addon& addon = addonOf(info.Env());
  auto out = Napi::Object::New(info.Env());
  out.Set("threads", double(addon.context.threads()));
  out.Set("device", nameOf(addon.context.device));
  out.Set("vectorLevel", nameOf(addon.context.vectorLevel));
  out.Set("supportedVectorLevel", nameOf(supportedVectorLevel()));
  out.Set("cudaCompiled", cuda::compiled());
  std::string problem;
  const auto devices = cuda::devices(problem);
  auto list = Napi::Array::New(info.Env(), devices.size());
  for (size_t i = 0; i < devices.size(); i++) {
    auto device = Napi::Object::New(info.Env());
    device.Set("name", devices[i].name);
    device.Set("computeCapability",
               std::to_string(devices[i].computeMajor) + "." + std::to_string(devices[i].computeMinor));
    device.Set("totalBytes", devices[i].totalBytes);
    device.Set("multiprocessors", devices[i].multiprocessors);
    list[uint32_t(i)] = device;
  }
  out.Set("cudaDevices", list);
  out.Set("cudaProblem", problem);
  out.Set("cudaDriver", cuda::driverVersion());
  out.Set("cudaRuntime", cuda::runtimeVersion());
  return out;
}

Napi::Array knobs(Napi::Env env) {
  auto list = Napi::Array::New(env);
  for (const Knob& knob : kKnobs) {
    auto entry = Napi::Object::New(env);
    entry.Set("name", knob.name);
    entry.Set("meaning", knob.meaning);
    entry.Set("rollout", knob.rollout);
    entry.Set("training", knob.training);
    entry.Set("matched", knob.matched);
    list[list.Length()] = entry;
  }
  return list;
}

void registerKernelsOnce() {
  static const bool done = [] {
    registerCpuKernels(Registry::instance());
    cuda::registerKernels(Registry::instance());
    return true;
  }();
  (void)done;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  registerKernelsOnce();
  Addon* addon = nullptr;
  try {
    addon = new Addon(env);
  } catch (const std::exception& error) {
    Napi::Error::New(env, error.what()).ThrowAsJavaScriptException();
    return exports;
  }
  // Natural exit and worker.terminate() run this; process.exit() does not, and needs nothing: the threads
  // just end.
  napi_set_instance_data(
      env, addon, [](napi_env, void* data, void*) { delete static_cast<Addon*>(data); }, nullptr);
  napi_add_env_cleanup_hook(
      env,
      [](void* data) {
        Addon& a = *static_cast<Addon*>(data);
        a.context.stop();
        napi_delete_reference(a.env, a.bufferReference);
      },
      addon);

  napi_value buffer;
  napi_create_arraybuffer(env, kBufferLength * sizeof(double), reinterpret_cast<void**>(&addon->buffer),
                          &buffer);
  napi_create_reference(env, buffer, 1, &addon->bufferReference);
  napi_value name;
  napi_create_string_utf8(env, "isopolicy", NAPI_AUTO_LENGTH, &name);
  napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settleRead,
                                  &addon->settle);
  napi_unref_threadsafe_function(env, addon->settle);

  auto names = Napi::Array::New(env, size_t(kOpCount));
  for (int i = 0; i < kOpCount; i++) names[uint32_t(i)] = Napi::String::New(env, kOps[i].name);
  // The two that every op takes: plain functions, without the wrapping of the others.
  napi_value invokeFunction, disposeFunction;
  napi_create_function(env, "invoke", NAPI_AUTO_LENGTH, invoke, nullptr, &invokeFunction);
  napi_create_function(env, "dispose", NAPI_AUTO_LENGTH, dispose, nullptr, &disposeFunction);
  exports.Set("buffer", Napi::Value(env, buffer));
  exports.Set("ops", names);
  exports.Set("knobs", knobs(env));
  exports.Set("invoke", Napi::Value(env, invokeFunction));
  exports.Set("takeError", Napi::Function::New(env, takeError));
  exports.Set("dispose", Napi::Value(env, disposeFunction));
  exports.Set("upload", Napi::Function::New(env, upload));
  exports.Set("read", Napi::Function::New(env, read));
  exports.Set("beginRecording", Napi::Function::New(env, beginRecording));
  exports.Set("endRecording", Napi::Function::New(env, endRecording));
  exports.Set("replay", Napi::Function::New(env, replay));
  exports.Set("disposeRecording", Napi::Function::New(env, disposeRecording));
  exports.Set("memory", Napi::Function::New(env, memory));
  exports.Set("freeMemory", Napi::Function::New(env, freeMemory));
  exports.Set("trim", Napi::Function::New(env, trim));
  exports.Set("setDevice", Napi::Function::New(env, setDevice));
  exports.Set("setThreads", Napi::Function::New(env, setThreads));
  exports.Set("setVectorLevel", Napi::Function::New(env, setVectorLevel));
  exports.Set("setProfiling", Napi::Function::New(env, setProfiling));
  exports.Set("profile", Napi::Function::New(env, profile));
  exports.Set("info", Napi::Function::New(env, describe));
  return exports;
}

}  // namespace
}  // namespace isopolicy

static Napi::Object Init(Napi::Env env, Napi::Object exports) { return isopolicy::initialize(env, exports); }
NODE_API_MODULE(isopolicy, Init)
