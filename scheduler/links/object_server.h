// Serves the object store to workers in chunks, on threads of its own, so that a slow disk never
// delays heartbeats. Requests of one worker are served in order; those of several at once.
//
// A get is answered with up to kObjectChunkBytes from the offset asked for; the receiver verifies
// the whole object's digest. A put names the object's digest and size with every chunk; chunks come
// in order, each answered with how much has arrived. A chunk at another offset is answered with the
// offset to go on from and is otherwise ignored. The last chunk is answered `complete` once the
// object is verified and durable; an object that is already here, at once.
//
// Threads: any.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "runtime/base/work_queue.h"
#include "runtime/wire/channel.h"
#include "scheduler/loop/object_keeper.h"
#include "storage/objects/object_store.h"

namespace lepton::scheduler {

class ObjectServer {
 public:
  using PeerId = wire::RouterChannel::PeerId;
  using Send = std::function<void(const PeerId&, const wire::ToWorker&)>;

  // `objects` and `keeper` must outlive this; `send` is called until the destructor returns.
  ObjectServer(storage::ObjectStore& objects, ObjectKeeper& keeper, Send send, int threads = 3);
  ~ObjectServer();  // finishes what is queued

  void Get(const PeerId& peer, wire::ObjectGet get);
  void Put(const PeerId& peer, wire::ObjectPut put);
  // The peer is gone: its unfinished uploads are discarded.
  void Drop(const PeerId& peer);

 private:
  struct Peer;
  using Job = std::function<void(Peer&)>;
  bool Enqueue(const PeerId& peer, Job job);
  void RunQueue(std::shared_ptr<Peer> peer);
  void ServeGet(const PeerId& peer, const wire::ObjectGet& get);
  wire::ObjectAck ServePut(Peer& peer, const wire::ObjectPut& put);

  storage::ObjectStore& objects_;
  ObjectKeeper& keeper_;
  const Send send_;
  std::mutex mutex_;
  std::map<PeerId, std::shared_ptr<Peer>> peers_;
  WorkQueue pool_;  // last: its destructor runs what is queued
};

}  // namespace lepton::scheduler
