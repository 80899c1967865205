#include "broker/kept_uploads.h"

#include <algorithm>
#include <utility>

namespace thresher::broker {

void KeptUploads::Track(ActorId actor, std::uint64_t upload,
                        const std::vector<TrajectoryId>& open) {
  Account& account = accounts_[actor];
  if (account.consumed.Contains(upload) || account.open.contains(upload)) return;
  if (open.empty()) {
    account.consumed.Insert(upload, upload + 1);
    news_[actor].push_back(upload);
    return;
  }
  account.open[upload] = open.size();
  ++uploads_;
  for (const TrajectoryId& id : open) waiting_[id].push_back({actor, upload});
}

void KeptUploads::CountDown(const std::vector<Upload>& uploads) {
  for (const Upload& upload : uploads) {
    Account& account = accounts_.at(upload.actor);
    auto found = account.open.find(upload.number);
    if (--found->second > 0) continue;
    account.open.erase(found);
    --uploads_;
    account.consumed.Insert(upload.number, upload.number + 1);
    news_[upload.actor].push_back(upload.number);
  }
}

void KeptUploads::Settle(const TrajectoryId& id) {
  auto found = waiting_.find(id);
  if (found == waiting_.end()) return;
  CountDown(found->second);
  waiting_.erase(found);
}

std::map<ActorId, std::vector<std::uint64_t>> KeptUploads::TakeNews() {
  auto news = std::exchange(news_, {});
  for (auto& [actor, uploads] : news) std::ranges::sort(uploads);
  return news;
}

std::vector<std::uint64_t> KeptUploads::Consumed(ActorId actor,
                                                 const std::vector<std::uint64_t>& uploads) const {
  std::vector<std::uint64_t> consumed;
  auto account = accounts_.find(actor);
  if (account == accounts_.end()) return consumed;
  std::ranges::copy_if(uploads, std::back_inserter(consumed), [&](std::uint64_t upload) {
    return account->second.consumed.Contains(upload);
  });
  return consumed;
}

void KeptUploads::Forget(ActorId actor) {
  auto account = accounts_.find(actor);
  if (account == accounts_.end()) return;
  uploads_ -= account->second.open.size();
  accounts_.erase(account);
  news_.erase(actor);
  for (auto it = waiting_.begin(); it != waiting_.end();) {
    std::erase_if(it->second, [&](const Upload& upload) { return upload.actor == actor; });
    it = it->second.empty() ? waiting_.erase(it) : std::next(it);
  }
}

}  // namespace thresher::broker
