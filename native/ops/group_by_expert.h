// Rows of tokens sorted by expert, and back.
//
// Choice (t, s), slot s of token t, gets a row; the rows of expert e are offsets[e] .. offsets[e + 1] - 1, in
// the order of the choices.
#pragma once
#include "core/dtype.h"

namespace isopolicy {

struct GroupByExpertArgs {
  const int32_t* ids;  // [tokens, k]
  int32_t* rows;       // [tokens, k], the row of each choice
  int32_t* tokens;     // [tokens * k], the token of each row
  int32_t* offsets;    // [experts + 1]
  int64_t count, k, experts;
};

class OpCall;
void groupByExpertOp(OpCall& call);

}  // namespace isopolicy
