#include "scheduler/api/import_board.h"

namespace lepton::api {

std::unique_ptr<ImportBoard::Entry> ImportBoard::Begin(std::string subject, int64_t now_ms) {
  const std::lock_guard lock(mutex_);
  lines_.push_back({std::move(subject), "", 0, 0, now_ms});
  return std::unique_ptr<Entry>(new Entry(this, std::prev(lines_.end())));
}

ImportBoard::Entry::~Entry() {
  const std::lock_guard lock(board_->mutex_);
  board_->lines_.erase(line_);
}

bool ImportBoard::Entry::Update(const storage::ImportProgress& progress) {
  const std::lock_guard lock(board_->mutex_);
  line_->phase = progress.phase;
  line_->done = progress.done;
  line_->total = progress.total;
  return !board_->stopped_;
}

std::vector<ImportBoard::Line> ImportBoard::Lines() const {
  const std::lock_guard lock(mutex_);
  return {lines_.begin(), lines_.end()};
}

}  // namespace lepton::api
