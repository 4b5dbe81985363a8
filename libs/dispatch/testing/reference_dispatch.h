#ifndef SWITCHYARD_LIBS_DISPATCH_TESTING_REFERENCE_DISPATCH_H_
#define SWITCHYARD_LIBS_DISPATCH_TESTING_REFERENCE_DISPATCH_H_

#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "libs/dispatch/dispatch_plan.h"
#include "libs/dispatch/dispatcher.h"

namespace switchyard {

// The slow twin of replica choice, written from its definition: which shard index each activated
// expert goes to. Experts without a usable holder are left out. Pure.
std::map<uint16_t, uint32_t> ReferenceChoice(const DispatchPlanInput& input);

// out[row][slot] = expert(row) with no network in between. `expert` gets the number of the expert,
// the row as it arrives over a wire of `dtype` and the output row, which is then rounded likewise.
// Pure.
using ExpertFunction =
    std::function<void(uint16_t expert, std::span<const float> row, std::span<float> out)>;
std::vector<float> ReferenceDispatch(const RoutedRows& rows, uint32_t hidden_size, Dtype dtype,
                                     const ExpertFunction& expert);

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_DISPATCH_TESTING_REFERENCE_DISPATCH_H_
