#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "libs/frontend/admission.h"
#include "libs/frontend/router_picker.h"
#include "libs/frontend/session.h"
#include "libs/text/text_assets.h"

namespace switchyard {
namespace {

class SessionTest : public testing::Test {
 protected:
  SessionTest() : assets_(*LoadTextAssets("libs/text/testdata")) {}

  std::vector<SessionToken> TokensOf(const std::string& text) const {
    std::vector<SessionToken> tokens;
    const auto ids = assets_.tokenizer.Encode(text, false, ControlText::kAsText);
    EXPECT_TRUE(ids.ok()) << ids.status();
    for (const uint32_t id : ids.value()) {
      tokens.push_back({.token = id, .logprob = -0.5F, .top = {{id + 1, -0.25F}, {id, -0.5F}}});
    }
    return tokens;
  }

  // Feeds one token at a time; the text until the end.
  std::string Run(Session& session, const std::vector<SessionToken>& tokens, ChoiceFinish reason) {
    std::string text;
    for (const SessionToken& token : tokens) {
      const Session::Delta delta = session.OnTokens({&token, 1});
      text += delta.text;
      if (delta.finish != ChoiceFinish::kNone) {
        finish_ = delta.finish;
        return text;
      }
    }
    const Session::Delta delta = session.OnFinish(reason);
    finish_ = delta.finish;
    return text + delta.text;
  }

  TextAssets assets_;
  ChoiceFinish finish_ = ChoiceFinish::kNone;
};

TEST_F(SessionTest, GivesTheTextOfItsTokens) {
  const std::string text = "The router adds the rows. Grüße 你好 😀";
  Session session(assets_.tokenizer, {});
  const std::vector<SessionToken> tokens = TokensOf(text);
  EXPECT_EQ(Run(session, tokens, ChoiceFinish::kLength), text);
  EXPECT_EQ(finish_, ChoiceFinish::kLength);
  EXPECT_EQ(session.token_count(), tokens.size());
  ASSERT_EQ(session.resume().tokens().size(), tokens.size());
  EXPECT_EQ(session.resume().tokens()[0], tokens[0].token);
}

TEST_F(SessionTest, NeverSplitsACharacter) {
  Session session(assets_.tokenizer, {});
  for (const SessionToken& token : TokensOf("😀你😀")) {
    const std::string piece = session.OnTokens({&token, 1}).text;
    EXPECT_EQ(piece.find("\xef\xbf\xbd"), std::string::npos);
  }
}

TEST_F(SessionTest, EndsAtAStopStringAndSaysSo) {
  Session session(assets_.tokenizer, {.stop = {"the rows"}});
  EXPECT_EQ(Run(session, TokensOf("The router adds the rows in order"), ChoiceFinish::kLength),
            "The router adds ");
  EXPECT_EQ(finish_, ChoiceFinish::kStop);
  EXPECT_TRUE(session.finished());
  const std::vector<SessionToken> late = TokensOf("late");
  EXPECT_TRUE(session.OnTokens(late).empty());
  EXPECT_TRUE(session.OnFinish(ChoiceFinish::kLength).empty());
}

TEST_F(SessionTest, KeepsTheStopStringWhenAsked) {
  Session session(assets_.tokenizer, {.stop = {"adds"}, .include_stop = true});
  EXPECT_EQ(Run(session, TokensOf("The router adds the"), ChoiceFinish::kLength),
            "The router adds");
}

TEST_F(SessionTest, GivesBackHeldTextAtTheEnd) {
  Session session(assets_.tokenizer, {.stop = {"rows of"}});
  EXPECT_EQ(Run(session, TokensOf("the rows"), ChoiceFinish::kLength), "the rows");
  EXPECT_EQ(finish_, ChoiceFinish::kLength);
}

TEST_F(SessionTest, HidesEndTokensAndControlTokensButNotOthers) {
  const uint32_t end = assets_.eos_ids.back();
  const uint32_t user = *assets_.tokenizer.TokenIdOf("<|User|>");
  const uint32_t think = *assets_.tokenizer.TokenIdOf("<think>");
  Session session(assets_.tokenizer, {.end_tokens = assets_.eos_ids});
  EXPECT_EQ(Run(session, {{.token = think}, {.token = user}, {.token = end}}, ChoiceFinish::kStop),
            "<think>");
  EXPECT_EQ(session.token_count(), 3U);
}

TEST_F(SessionTest, AssemblesLogprobs) {
  Session session(assets_.tokenizer, {.wants_logprobs = true});
  const std::vector<SessionToken> tokens = TokensOf("the rows");
  const Session::Delta delta = session.OnTokens(tokens);
  ASSERT_EQ(delta.logprobs.size(), tokens.size());
  EXPECT_EQ(delta.logprobs[0].token.bytes, assets_.tokenizer.TokenBytes(tokens[0].token));
  EXPECT_EQ(delta.logprobs[0].token.logprob, -0.5F);
  ASSERT_EQ(delta.logprobs[0].top.size(), 2U);
  EXPECT_EQ(delta.logprobs[0].top[0].logprob, -0.25F);
}

TEST_F(SessionTest, PutsTheChosenTokenAmongTheAlternatives) {
  Session session(assets_.tokenizer, {.wants_logprobs = true, .chosen_in_top = true});
  const std::vector<SessionToken> tokens = {{.token = 70, .logprob = -3.0F, .top = {{71, -0.1F}}}};
  const Session::Delta delta = session.OnTokens(tokens);
  ASSERT_EQ(delta.logprobs[0].top.size(), 2U);
  EXPECT_EQ(delta.logprobs[0].top[1].logprob, -3.0F);
}

TEST_F(SessionTest, ScoresAPromptFromItsSecondTokenOn) {
  const Session session(assets_.tokenizer, {});
  const std::vector<uint32_t> prompt = {65, 66, 67};
  const std::vector<SessionToken> scores = {{.token = 66, .logprob = -1.0F},
                                            {.token = 67, .logprob = -2.0F}};
  const auto positions = session.PromptLogprobs(prompt, scores);
  ASSERT_EQ(positions.size(), 3U);
  EXPECT_FALSE(positions[0].known);
  EXPECT_EQ(positions[1].token.logprob, -1.0F);
  EXPECT_EQ(positions[2].token.logprob, -2.0F);
}

TEST(Admission, RefusesWhatDoesNotFitUntilThereIsRoom) {
  Admission admission(3);
  auto first = admission.TryEnter(2);
  ASSERT_TRUE(first.has_value());
  EXPECT_FALSE(admission.TryEnter(2).has_value());
  {
    const auto second = admission.TryEnter(1);
    EXPECT_TRUE(second.has_value());
    EXPECT_EQ(admission.open_count(), 3U);
    EXPECT_FALSE(admission.TryEnter(1).has_value());
  }
  EXPECT_EQ(admission.open_count(), 2U);
  EXPECT_FALSE(admission.WaitUntilEmpty(Duration::zero()));
  first.reset();
  EXPECT_TRUE(admission.WaitUntilEmpty(Duration::zero()));
}

TEST(Admission, LetsALargeRequestRunAlone) {
  Admission admission(3);
  const auto large = admission.TryEnter(100);
  EXPECT_TRUE(large.has_value());
  EXPECT_FALSE(admission.TryEnter(1).has_value());
}

TEST(PickRouter, PicksNoneWhenNoneIsUsable) {
  EXPECT_EQ(PickRouter({}, 1), std::nullopt);
  const std::vector<RouterView> routers = {{.usable = false}};
  EXPECT_EQ(PickRouter(routers, 1), std::nullopt);
}

TEST(PickRouter, KeepsAKeyAtItsRouter) {
  std::vector<RouterView> routers;
  for (uint64_t i = 0; i < 4; ++i) {
    routers.push_back({.usable = true, .identity = i, .load = i});
  }
  std::vector<int> picks(4, 0);
  for (uint64_t key = 0; key < 400; ++key) {
    const size_t pick = *PickRouter(routers, key);
    EXPECT_EQ(PickRouter(routers, key), pick);
    ++picks[pick];
  }
  for (const int count : picks) {
    EXPECT_GT(count, 50);
  }
}

TEST(PickRouter, MovesOnlyTheKeysOfARouterThatLeft) {
  std::vector<RouterView> routers;
  for (uint64_t i = 0; i < 4; ++i) {
    routers.push_back({.usable = true, .identity = i});
  }
  for (uint64_t key = 0; key < 200; ++key) {
    routers[2].usable = true;
    const size_t before = *PickRouter(routers, key);
    routers[2].usable = false;
    const size_t after = *PickRouter(routers, key);
    EXPECT_NE(after, 2U);
    EXPECT_TRUE(before == 2 || before == after);
  }
}

TEST(PickRouter, LeavesABusyOwnerForTheLeastLoaded) {
  std::vector<RouterView> routers = {{.usable = true, .identity = 0},
                                     {.usable = true, .identity = 1}};
  const size_t owner = *PickRouter(routers, 7, {.affinity_slack = 2});
  routers[owner].load = 2;
  EXPECT_EQ(PickRouter(routers, 7, {.affinity_slack = 2}), owner);
  routers[owner].load = 3;
  EXPECT_EQ(PickRouter(routers, 7, {.affinity_slack = 2}), 1 - owner);
}

TEST(AffinityKey, DependsOnTheBeginningAndTheSalt) {
  const std::vector<uint32_t> a(100, 1);
  std::vector<uint32_t> b = a;
  b[99] = 2;
  EXPECT_EQ(AffinityKey(a, ""), AffinityKey(b, ""));
  EXPECT_NE(AffinityKey(a, ""), AffinityKey(a, "salt"));
  b[0] = 2;
  EXPECT_NE(AffinityKey(a, ""), AffinityKey(b, ""));
}

}  // namespace
}  // namespace switchyard
