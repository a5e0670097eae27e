#pragma once

namespace isopolicy {

class OpCall;
class Registry;
void allocateOp(OpCall& call);
void fillOp(OpCall& call);
void copyOp(OpCall& call);
void viewOp(OpCall& call);
void randomNormalOp(OpCall& call);
void randomUniformOp(OpCall& call);
void registerMemory(Registry& registry);

}  // namespace isopolicy
