// bf16 products on AMX tiles (Intel SDM, vol. 1, chapter 18). Two tiles of rows times two of
// columns stay in four tile registers; the other four take what is loaded. Packing is that of
// AVX-512, which every CPU with AMX has.
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/kernels/cpu/gemm/micro.h"

namespace lepton::kernels::gemm {
namespace {

constexpr int64_t kTileElements = 512;
constexpr int64_t kStepElements = 2 * kTileElements;
constexpr int64_t kInnerOfStep = 32;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t column_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The instructions by hand: GCC 12's intrinsics for loading the configuration do not say that they
// read all of it, and the compiler drops the stores.
void EnterAmx() {
  static const TileConfig config = [] {
    TileConfig made;
    for (int tile = 0; tile < 8; ++tile) {
      made.column_bytes[tile] = 64;
      made.rows[tile] = 16;
    }
    return made;
  }();
  asm volatile("ldtilecfg %0" ::"m"(config));
}

void LeaveAmx() {
  asm volatile("tilerelease" ::: "memory");
}

// AddressSanitizer does not see what assembly touches: in its builds both ends of each of a tile's
// rows are read before.
#if defined(__SANITIZE_ADDRESS__)
void TouchTile(const void* at, int64_t pitch) {
  for (int64_t row = 0; row < 16; ++row) {
    const volatile char* line = static_cast<const char*>(at) + row * pitch;
    (void)line[0];
    (void)line[63];
  }
}
#else
inline void TouchTile(const void*, int64_t) {}
#endif

#define LEPTON_TILE_LOAD(tile, at, pitch)                                              \
  do {                                                                                 \
    TouchTile(at, pitch);                                                              \
    asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(at), "r"(pitch) : "memory"); \
  } while (false)
#define LEPTON_TILE_STORE(tile, at, pitch)                                                 \
  do {                                                                                     \
    TouchTile(at, pitch);                                                                  \
    asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(at), "r"(pitch) : "memory"); \
  } while (false)
#define LEPTON_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::)
#define LEPTON_TILE_MULTIPLY(c, a, b)                                  \
  do {                                                                 \
    if (kInt8) {                                                       \
      asm volatile("tdpbssd %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::);   \
    } else {                                                           \
      asm volatile("tdpbf16ps %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::); \
    }                                                                  \
  } while (false)

constexpr int64_t kTilePitch = 64;                  // bytes
constexpr int64_t kRowPitch = kPanelColumns * 4;    // bytes of c
constexpr int64_t kLowerRows = 16 * kPanelColumns;  // elements of c

// Elements here are of 16 bits: a pair of i8 counts as one. The rows of a tile lie `pitch` bytes
// apart, a tile of the lower 16 rows `lower` elements behind its upper, the tiles of the next step
// `advance` elements behind these.
template <bool kTwoRows, bool kInt8 = false>
inline __attribute__((always_inline)) void MultiplyTiles(int64_t steps, const uint16_t* block,
                                                         int64_t pitch, int64_t lower,
                                                         int64_t advance, const uint16_t* panel,
                                                         float* c, bool add) {
  if (add) {
    LEPTON_TILE_LOAD(0, c, kRowPitch);
    LEPTON_TILE_LOAD(1, c + 16, kRowPitch);
    if (kTwoRows) LEPTON_TILE_LOAD(2, c + kLowerRows, kRowPitch);
    if (kTwoRows) LEPTON_TILE_LOAD(3, c + kLowerRows + 16, kRowPitch);
  } else {
    LEPTON_TILE_ZERO(0);
    LEPTON_TILE_ZERO(1);
    if (kTwoRows) LEPTON_TILE_ZERO(2);
    if (kTwoRows) LEPTON_TILE_ZERO(3);
  }
  for (int64_t step = 0; step < steps; ++step) {
    LEPTON_TILE_LOAD(6, panel, kTilePitch);
    LEPTON_TILE_LOAD(4, block, pitch);
    LEPTON_TILE_MULTIPLY(0, 4, 6);
    LEPTON_TILE_LOAD(7, panel + kTileElements, kTilePitch);
    LEPTON_TILE_MULTIPLY(1, 4, 7);
    if (kTwoRows) {
      LEPTON_TILE_LOAD(5, block + lower, pitch);
      LEPTON_TILE_MULTIPLY(2, 5, 6);
      LEPTON_TILE_MULTIPLY(3, 5, 7);
    }
    block += advance;
    panel += kStepElements;
  }
  LEPTON_TILE_STORE(0, c, kRowPitch);
  LEPTON_TILE_STORE(1, c + 16, kRowPitch);
  if (kTwoRows) LEPTON_TILE_STORE(2, c + kLowerRows, kRowPitch);
  if (kTwoRows) LEPTON_TILE_STORE(3, c + kLowerRows + 16, kRowPitch);
}

// Few rows are cheaper on vectors, with the same bits.
constexpr int64_t kFewRows = 4;

void MultiplyAmx(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                 bool add) {
  if (rows <= kFewRows) {
    kBf16Avx512.multiply(rows, inner, block, panel, c, add);
    return;
  }
  const auto* left = static_cast<const uint16_t*>(block);
  const auto* right = static_cast<const uint16_t*>(panel);
  if (rows > 16) {
    MultiplyTiles<true>(inner / kInnerOfStep, left, kTilePitch, kTileElements, kStepElements, right,
                        c, add);
  } else {
    MultiplyTiles<false>(inner / kInnerOfStep, left, kTilePitch, kTileElements, kStepElements,
                         right, c, add);
  }
}

void MultiplyRowsAmx(int64_t inner, const void* rows, int64_t pitch, const void* panel, float* c,
                     bool add) {
  MultiplyTiles<true>(inner / kInnerOfStep, static_cast<const uint16_t*>(rows), 2 * pitch,
                      16 * pitch, kInnerOfStep, static_cast<const uint16_t*>(panel), c, add);
}

template <bool kTwoTiles>
inline __attribute__((always_inline)) void MultiplyShifted(const ShiftedProduct& p) {
  constexpr bool kInt8 = false;
  LEPTON_TILE_ZERO(0);
  LEPTON_TILE_ZERO(2);
  if (kTwoTiles) LEPTON_TILE_ZERO(1);
  if (kTwoTiles) LEPTON_TILE_ZERO(3);
  const auto* block = static_cast<const uint16_t*>(p.blocks);
  const int64_t bytes = p.pitch * 4;
  for (int64_t tap = 0; tap < p.taps; ++tap) {
    const uint32_t* first = p.images + p.positions[0] + p.shifts[tap];
    const uint32_t* second = p.images + p.positions[1] + p.shifts[tap];
    for (int64_t step = 0; step < p.steps; ++step) {
      LEPTON_TILE_LOAD(6, first, bytes);
      LEPTON_TILE_LOAD(4, block, kTilePitch);
      LEPTON_TILE_MULTIPLY(0, 4, 6);
      if (kTwoTiles) LEPTON_TILE_LOAD(7, second, bytes);
      if (kTwoTiles) LEPTON_TILE_MULTIPLY(1, 4, 7);
      LEPTON_TILE_LOAD(5, block + kTileElements, kTilePitch);
      LEPTON_TILE_MULTIPLY(2, 5, 6);
      if (kTwoTiles) LEPTON_TILE_MULTIPLY(3, 5, 7);
      block += kStepElements;
      first += 16 * p.pitch;
      second += 16 * p.pitch;
    }
  }
  const int64_t c_bytes = p.c_pitch * 4;
  LEPTON_TILE_STORE(0, p.c[0], c_bytes);
  LEPTON_TILE_STORE(2, p.c[0] + 16 * p.c_pitch, c_bytes);
  if (kTwoTiles) LEPTON_TILE_STORE(1, p.c[1], c_bytes);
  if (kTwoTiles) LEPTON_TILE_STORE(3, p.c[1] + 16 * p.c_pitch, c_bytes);
}

constexpr int64_t kInnerOfInt8Step = 64;

void MultiplyInt8Amx(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                     bool add) {
  const auto* left = static_cast<const uint16_t*>(block);
  const auto* right = static_cast<const uint16_t*>(panel);
  const int64_t steps = inner / kInnerOfInt8Step;
  if (rows > 16) {
    MultiplyTiles<true, true>(steps, left, kTilePitch, kTileElements, kStepElements, right, c, add);
  } else {
    MultiplyTiles<false, true>(steps, left, kTilePitch, kTileElements, kStepElements, right, c,
                               add);
  }
}

void MultiplyInt8RowsAmx(int64_t inner, const void* rows, int64_t pitch, const void* panel,
                         float* c, bool add) {
  MultiplyTiles<true, true>(inner / kInnerOfInt8Step, static_cast<const uint16_t*>(rows), pitch,
                            8 * pitch, kInnerOfStep, static_cast<const uint16_t*>(panel), c, add);
}

void MultiplyShiftedAmx(const ShiftedProduct& product, int tiles) {
  tiles == 2 ? MultiplyShifted<true>(product) : MultiplyShifted<false>(product);
}

}  // namespace

extern const Micro kInt8Amx;
const Micro kInt8Amx = {
    "amx",
    32,
    kInnerOfInt8Step,
    1024,
    1,
    [](const Part& part, void* blocks) { kInt8Baseline.pack_blocks(part, blocks); },
    [](const Part& part, void* panels) { kInt8Baseline.pack_panels(part, panels); },
    MultiplyInt8Amx,
    MultiplyInt8RowsAmx,
    nullptr,
    nullptr,
    nullptr,
    EnterAmx,
    LeaveAmx};

extern const Micro kBf16Amx;
const Micro kBf16Amx = {
    "amx",
    32,
    kInnerOfStep,
    512,
    2,
    [](const Part& part, void* blocks) { kBf16Avx512.pack_blocks(part, blocks); },
    [](const Part& part, void* panels) { kBf16Avx512.pack_panels(part, panels); },
    MultiplyAmx,
    MultiplyRowsAmx,
    [](const Part& part, uint16_t* rows, int64_t pitch) {
      kBf16Avx512.pack_rows(part, rows, pitch);
    },
    [](int64_t rows, int64_t columns, const float* c, float* to, int64_t pitch) {
      kBf16Avx512.turn(rows, columns, c, to, pitch);
    },
    MultiplyShiftedAmx,
    EnterAmx,
    LeaveAmx};

}  // namespace lepton::kernels::gemm
