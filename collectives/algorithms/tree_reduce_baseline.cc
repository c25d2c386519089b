#define LEPTON_TREE_REDUCE_SET baseline
#include "collectives/algorithms/tree_reduce_body.h"
