// Every op by name. lib/native.ts reads the names through the binding.
#include "ops/cast.h"
#include "ops/adamw.h"
#include "ops/embedding.h"
#include "ops/grad_stats.h"
#include "ops/reduce.h"
#include "ops/memory.h"
#include "ops/op.h"

namespace isopolicy {

const Op kOps[] = {
    {"allocate", allocateOp},         {"fill", fillOp}, {"copy", copyOp}, {"view", viewOp},
    {"randomNormal", randomNormalOp}, {"cast", castOp},
    {"embedding", embeddingOp},
    {"gatherRows", gatherRowsOp},
    {"embeddingBackward", embeddingBackwardOp},
    {"scatterRows", scatterRowsOp},
    {"reduce", reduceOp},
    {"columnSum", columnSumOp},
    {"gradStats", gradStatsOp},
    {"adamw", adamwOp},
};
const int kOpCount = int(sizeof(kOps) / sizeof(kOps[0]));

}  // namespace isopolicy
