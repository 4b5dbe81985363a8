#ifndef SWITCHYARD_LIBS_FRONTEND_RESUME_STATE_H_
#define SWITCHYARD_LIBS_FRONTEND_RESUME_STATE_H_

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

// ResumeState is what it takes to go on with a choice at another router: the ids received so far.
// With the prompt, the parameters and the seed they determine every further token.
//
// One owner: the choice's Session. Bounded by the request's max_tokens.
class ResumeState {
 public:
  void Append(uint32_t token) { tokens_.push_back(token); }

  std::span<const uint32_t> tokens() const { return tokens_; }

 private:
  std::vector<uint32_t> tokens_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_LIBS_FRONTEND_RESUME_STATE_H_
