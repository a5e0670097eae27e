// The three kinds of failure: a bad argument (thrown at the call), a device error (raised by queued work) and
// an internal one (anything else). The binding turns them into the JavaScript classes of lib/errors.ts.
#pragma once
#include <stdexcept>
#include <string>

namespace isopolicy {

struct InvalidArgument : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Thrown by a kernel on a native thread; the stream keeps the first one until JavaScript has seen it.
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void expected(const std::string& op, const std::string& what, const std::string& got) {
  throw InvalidArgument("[" + op + "] expected " + what + ", got " + got);
}

}  // namespace isopolicy
