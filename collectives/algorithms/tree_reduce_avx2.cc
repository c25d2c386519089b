#define LEPTON_TREE_REDUCE_SET avx2
#include "collectives/algorithms/tree_reduce_body.h"
