// The authentication thread: who may enter, and that nobody may once it has ended.
#include "common/net/zap.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>
#include <utility>
#include <vector>

namespace thresher::net {
namespace {

KeyRing NewKeys() {
  return {GenerateKeyPair().value(), GenerateKeyPair().value(), GenerateKeyPair().value(),
          GenerateKeyPair().value()};
}

std::string Raw(const KeyPair& key) {
  std::string raw(32, '\0');
  zmq_z85_decode(reinterpret_cast<std::uint8_t*>(raw.data()), key.public_key.c_str());
  return raw;
}

// Status code and user id of the answer to one request.
std::pair<std::string, std::string> Ask(zmq::context_t& context, const std::string& domain,
                                        const std::string& mechanism,
                                        const std::string& credentials) {
  zmq::socket_t asker(context, zmq::socket_type::req);
  asker.set(zmq::sockopt::linger, 0);
  asker.set(zmq::sockopt::rcvtimeo, 10000);
  asker.connect("inproc://zeromq.zap.01");
  const std::string parts[] = {"1.0", "7", domain, "127.0.0.1", "id", mechanism, credentials};
  for (std::size_t i = 0; i < 7; ++i) {
    asker.send(zmq::buffer(parts[i]), i < 6 ? zmq::send_flags::sndmore : zmq::send_flags::none);
  }
  std::vector<std::string> answer;
  zmq::message_t part;
  do {
    EXPECT_TRUE(asker.recv(part).has_value());
    answer.push_back(part.to_string());
  } while (part.more());
  EXPECT_EQ(answer.size(), 6u);
  EXPECT_EQ(answer.at(1), "7");
  return {answer.at(2), answer.at(4)};
}

TEST(Zap, AnswersByKeyDomainAndMechanism) {
  zmq::context_t context;
  const KeyRing keys = NewKeys();
  ZapHandler handler(context, &keys);
  using Answer = std::pair<std::string, std::string>;
  const Answer no = {"400", ""};
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", Raw(keys.actor)), (Answer{"200", "actor"}));
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", Raw(keys.learner)), (Answer{"200", "learner"}));
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", Raw(keys.tool)), (Answer{"200", "tool"}));
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", Raw(keys.broker)), no);
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", Raw(GenerateKeyPair().value())), no);
  EXPECT_EQ(Ask(context, kKeyedDomain, "CURVE", ""), no);
  EXPECT_EQ(Ask(context, kKeyedDomain, "NULL", ""), no);
  EXPECT_EQ(Ask(context, kKeyedDomain, "PLAIN", "actor"), no);
  EXPECT_EQ(Ask(context, kLocalDomain, "NULL", ""), (Answer{"200", "local"}));
  EXPECT_EQ(Ask(context, kLocalDomain, "CURVE", Raw(keys.actor)), no);
  EXPECT_EQ(Ask(context, "", "NULL", ""), no);
}

// However it ends but by its owner, the process ends with it: CURVE alone would let any key in.
void EndItsContext() {
  zmq::context_t context;
  const KeyRing keys = NewKeys();
  ZapHandler handler(context, &keys);
  context.shutdown();  // its poll fails
  std::this_thread::sleep_for(std::chrono::seconds(20));
}

void SendItNonsense() {
  zmq::context_t context;
  ZapHandler handler(context, nullptr);
  zmq::socket_t asker(context, zmq::socket_type::req);
  asker.connect("inproc://zeromq.zap.01");
  asker.send(zmq::str_buffer("0.9"), zmq::send_flags::none);
  std::this_thread::sleep_for(std::chrono::seconds(20));
}

TEST(ZapDeathTest, ItsEndIsTheEndOfTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(EndItsContext(), "");
  EXPECT_DEATH(SendItNonsense(), "authentication request of another version");
}

}  // namespace
}  // namespace thresher::net
