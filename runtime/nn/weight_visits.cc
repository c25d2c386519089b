#include "runtime/nn/weight_visits.h"

#include <algorithm>
#include <utility>

namespace lepton::nn {

WeightVisits::WeightVisits(const std::vector<ParameterView>& parameters, int64_t bucket_bytes)
    : parameters_(parameters), bucket_bytes_(bucket_bytes), bucket_of_(parameters.size()) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const ParameterView& view = parameters[i];
    if (view.statistic) continue;
    const bool full =
        buckets_.empty() || buckets_.back().bytes() >= static_cast<size_t>(bucket_bytes);
    if (full) buckets_.push_back({view.offset, view.offset});
    buckets_.back().end = view.offset + view.size;
    bucket_of_[i] = buckets_.size() - 1;
  }
}

void WeightVisits::Begin(const std::function<void(const Step&)>& walk) {
  while (!guests_.empty()) Leave(guests_.begin());
  foreseen_.clear();
  brought_ = 0;
  // The same arrivals and leavings, of no bytes.
  const Arrives foresee = [this](size_t bucket) {
    foreseen_.push_back(bucket);
    MakeRoom(buckets_[bucket].bytes());
    guests_.push_back({bucket, now_, Buffer()});
  };
  walk([&](std::span<const size_t> parameters) { Touch(parameters, foresee); });
  guests_.clear();
  status_ = source_ != nullptr ? Status::Ok()
                               : FailedPrecondition("the program's weights are with others");
  if (status_.ok()) ExpectNext();
}

// The one that comes next.
void WeightVisits::ExpectNext() {
  if (brought_ >= foreseen_.size()) return;
  const Bucket& next = buckets_[foreseen_[brought_]];
  source_->Expect(next.begin, next.end - next.begin);
}

WeightVisits::Guest* WeightVisits::Find(size_t bucket) {
  const auto found = std::find_if(guests_.begin(), guests_.end(),
                                  [&](const Guest& guest) { return guest.bucket == bucket; });
  return found == guests_.end() ? nullptr : &*found;
}

bool WeightVisits::Need(std::span<const size_t> parameters) {
  Touch(parameters, [this](size_t bucket) {
    if (status_.ok()) Bring(bucket);
  });
  return status_.ok();
}

void WeightVisits::Touch(std::span<const size_t> parameters, const Arrives& arrives) {
  ++now_;
  for (const size_t parameter : parameters) {
    if (Guest* const guest = Find(bucket_of_[parameter])) guest->used = now_;
  }
  for (const size_t parameter : parameters) {
    if (Find(bucket_of_[parameter]) == nullptr) arrives(bucket_of_[parameter]);
  }
}

float* WeightVisits::place(size_t parameter) {
  const size_t bucket = bucket_of_[parameter];
  return Find(bucket)->data.as<float>() + (parameters_[parameter].offset - buckets_[bucket].begin);
}

void WeightVisits::Bring(size_t number) {
  const Bucket& bucket = buckets_[number];
  MakeRoom(bucket.bytes());
  guests_.push_back({number, now_, Take(bucket.bytes())});
  most_bytes_ = std::max(most_bytes_, held_bytes());
  status_ = source_->Bring(bucket.begin, {guests_.back().data.as<float>(),
                                          static_cast<size_t>(bucket.end - bucket.begin)});
  ++brought_;
  if (status_.ok()) ExpectNext();
}

// Its memory waits to be used again.
void WeightVisits::Leave(std::list<Guest>::iterator guest) {
  if (guest->data.size() > 0) spares_.push_back(std::move(guest->data));
  guests_.erase(guest);
}

void WeightVisits::MakeRoom(size_t bytes) {
  const size_t limit = 2 * std::max(bytes, static_cast<size_t>(bucket_bytes_));
  const auto resident = [&] {
    size_t sum = bytes;
    for (const Guest& guest : guests_) sum += buckets_[guest.bucket].bytes();
    return sum;
  };
  while (resident() > limit) {
    const auto oldest =
        std::min_element(guests_.begin(), guests_.end(),
                         [](const Guest& a, const Guest& b) { return a.used < b.used; });
    if (oldest == guests_.end() || oldest->used == now_) return;
    Leave(oldest);
  }
}

// Of what waits the smallest that is large enough, if it would not be much too large. Else all that
// waits goes: buckets of other sizes are coming.
Buffer WeightVisits::Take(size_t bytes) {
  const auto fits = [&](const Buffer& buffer) {
    return bytes <= buffer.size() && buffer.size() <= 2 * bytes;
  };
  const auto best =
      std::min_element(spares_.begin(), spares_.end(), [&](const Buffer& a, const Buffer& b) {
        if (fits(a) != fits(b)) return fits(a);
        return a.size() < b.size();
      });
  if (best == spares_.end() || !fits(*best)) {
    spares_.clear();
    return Buffer(bytes);
  }
  Buffer buffer = std::move(*best);
  spares_.erase(best);
  return buffer;
}

size_t WeightVisits::held_bytes() const {
  size_t sum = 0;
  for (const Buffer& spare : spares_) sum += spare.size();
  for (const Guest& guest : guests_) sum += guest.data.size();
  return sum;
}

}  // namespace lepton::nn
