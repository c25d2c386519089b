// Where a gang goes: all of it or none. A rank takes `slots` of one worker. Ranks are spread over
// distinct workers first, those with the most free slots before others, and only then doubled up.
// A gang that is a whole launcher world has one rank on each of its workers, and nothing else will
// do. The answer carries its reason. Threads: pure.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace lepton::placement {

struct Seat {
  std::string worker;
  std::string host;
  std::string world;          // launcher world: the workers of one mpirun or srun; empty: neither
  uint32_t world_size = 1;    // of them there were so many
  bool world_in_use = false;  // by a gang's MPI: it has the whole world
  bool world_over = false;    // MPI lost a rank in it, and cannot begin there again
  uint32_t slots = 0;
  uint32_t free = 0;
  uint32_t gpus = 0;
  uint32_t load = 0;        // tasks of the same owner there: less is preferred
  uint32_t gang_ranks = 0;  // living, of the gang that asks for more
};

struct GangRequest {
  int min_workers = 1;
  int max_workers = 1;
  uint32_t slots = 1;  // per rank; 0: shares what others hold
  bool gpu = false;
  bool gpu_each = false;  // NCCL: no two ranks of a gang compute on one GPU
  // MPI: MPI_Init waits for every process of one mpirun or srun, and takes one task of each worker
  // for that process.
  bool whole_world = false;
  std::set<std::string> excluded;
};

struct Placement {
  std::vector<std::string> workers;  // by rank; empty: it must wait
  std::string reason;                // "2 of at most 4 ranks", "needs 2 x 1 slots, 1 free of 4"
  bool never = false;                // not even if every slot of these workers were free
};

Placement PlaceGang(const std::vector<Seat>& seats, const GangRequest& request);

}  // namespace lepton::placement
