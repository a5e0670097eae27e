// How an op is declared: it reads its arguments, checks them, allocates its outputs and queues a kernel.
//
// Everything that can be known from shapes, types and settings is checked here, on the JavaScript thread,
// before anything is queued. Arguments come in the order in which lib/ops writes them; names are for the
// messages.
#pragma once
#include <optional>
#include <string>

#include "core/context.h"

namespace isopolicy {

class OpCall {
 public:
  OpCall(Context& context, const char* op, const double* arguments, int count, double* outputs)
      : context(context), op(op), arguments_(arguments), count_(count), outputs_(outputs) {}

  // ---- Arguments, in order ----
  // By value: allocating an output may move the table that tensors live in.
  Tensor tensor(const char* name);
  // Nothing for a missing optional tensor (handle 0).
  std::optional<Tensor> optionalTensor(const char* name);
  double number(const char* name);
  int64_t integer(const char* name, int64_t min = INT32_MIN, int64_t max = INT32_MAX);
  bool flag(const char* name) { return integer(name, 0, 1) != 0; }
  DType dtype(const char* name) { return DType(integer(name, 0, kLastEmulated)); }
  DType floatDtype(const char* name) {
    const DType t = dtype(name);
    expect(isFloat(t), std::string(name) + " to be a floating-point dtype", nameOf(t));
    return t;
  }
  Family family(const char* name = "family") { return Family(integer(name, 1, 2)); }
  // The device that the op is to run on, where no tensor says so: its number plus 1, or 0 for the context's.
  void readDevice(const char* name) {
    const int64_t number = integer(name, 0, kDevices);
    if (number > 0) device_ = Device(number - 1);
  }
  Shape shape(const char* name);  // written as rank, then the dimensions
  int remaining() const { return count_ - next_; }

  // ---- Checks; they throw InvalidArgument naming the argument, what was expected and what was found ----
  [[noreturn]] void fail(const std::string& what, const std::string& got) const { expected(op, what, got); }
  void expect(bool holds, const std::string& what, const std::string& got) const {
    if (!holds) fail(what, got);
  }
  void expectShape(const char* name, const Tensor& t, const Shape& shape, const char* symbols = "") const;
  void expectRank(const char* name, const Tensor& t, int rank, const char* symbols = "") const;
  void expectDtype(const char* name, const Tensor& t, DType dtype) const;
  void expectFloat(const char* name, const Tensor& t) const;

  // ---- Outputs ----
  // On the device of the inputs, or of the context where there are none.
  Tensor output(DType dtype, const Shape& shape);
  // A new tensor like `like`, or the optional argument `out`, which may be `like` itself.
  Tensor outputLike(const char* name, const Tensor& like);
  void outputView(const Tensor& base, int64_t byteOffset, DType dtype, const Shape& shape);
  int outputs() const { return outputCount_; }
  // Lets go of what output() made, after a check that failed later.
  void discardOutputs();

  // ---- Work ----
  // Queues the kernel registered for Args; every tensor that the arguments point into must be named in
  // `touched`, so that a recording keeps it. Outputs made by output() need not be.
  template <class Args>
  void enqueue(Family family, const Args& args, std::initializer_list<const Tensor*> touched,
               std::shared_ptr<void> keep = nullptr) {
    const ErasedKernel kernel = Registry::instance().find<Args>(op, family, device(), context.vectorLevel);
    for (const Tensor* t : touched)
      if (t) context.retainForRecording(*t);
    stream().enqueue(op, kernel, args, std::move(keep));
  }
  // Of the inputs read so far: an op runs where its tensors are.
  Device device() const { return device_.value_or(context.device); }

  Context& context;
  const char* const op;

 private:
  // The device's stream; a recording on another device refuses the op.
  Stream& stream();
  double next(const char* name);
  void writeOutput(double handle, const Tensor& t);
  const double* arguments_;
  int count_;
  int next_ = 0;
  std::optional<Device> device_;
  const char* deviceOf_ = "";  // the first tensor, which set the device
  double* outputs_;
  int written_ = 0;
  int outputCount_ = 0;
  double handles_[16];
};

struct Op {
  const char* name;
  void (*call)(OpCall&);
};

// Every op, in one visible table (ops/table.cc). The binding exports the names; an op's number is its
// position.
extern const Op kOps[];
extern const int kOpCount;

}  // namespace isopolicy
