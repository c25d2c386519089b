#define LEPTON_JSON_TEMPLATE template
#include "runtime/base/json.h"
