// The innermost part of a product, once per instruction set: how blocks of both sides are laid out,
// and how a block of the left side is multiplied with a panel of the right side.
// Threads: pure functions of their arguments.
#pragma once

#include <cstddef>
#include <cstdint>

#include "runtime/kernels/cpu/bf16_sums.h"
#include "runtime/kernels/cpu/gemm/gemm.h"

namespace lepton::kernels::gemm {

// Part of a source: rows of the left side, or columns of the right side, [first, first + count),
// with all of `inner`, which is padded with zeros to `padded`. What is missing of a last panel
// becomes zeros; rows that are missing of a last block, zeros or what was there.
struct Part {
  const void* data;
  Source source;
  int64_t first, count;
  int64_t inner, padded;
};

// Sums of products over shifted memory, for convolutions (conv/shifted_kernel.h).
// c[t] [32, 16] = sum over taps and channels of blocks * images, the 16 columns of c[t] being the
// positions from positions[t] on, moved by shifts[tap].
struct ShiftedProduct {
  const void* blocks;  // as pack_blocks lays 32 rows out; inner: tap by tap, 32 * steps channels
  const uint32_t* images;  // a pair of channels a number, bf16, the even one low
  int64_t pitch;           // numbers from pair to pair
  const int64_t* shifts;
  int64_t taps, steps;
  int64_t positions[2];
  float* c[2];
  int64_t c_pitch;  // floats from row to row
};

struct Micro {
  const char* name;
  int64_t block_rows;  // rows of a block of the left side
  int64_t step;        // `inner` is a multiple of this
  int64_t chunk;       // of `inner` at a time; a multiple of step
  int64_t element;     // bytes of a packed element
  // A block: `block_rows` rows. A panel: kPanelColumns columns. Each as many, one after the other,
  // as hold the part.
  void (*pack_blocks)(const Part& part, void* blocks);
  void (*pack_panels)(const Part& part, void* panels);
  // c [rows, kPanelColumns] (pitch kPanelColumns) = the block times the panel over `inner`, or +=.
  // `block` and `panel` point at the chunk. rows <= block_rows. c has room for block_rows: what is
  // behind `rows` may be read, and written with anything.
  void (*multiply)(int64_t rows, int64_t inner, const void* block, const void* panel, float* c,
                   bool add);
  // The same with a whole block of rows where they lie: elements of the packed type, each row's
  // `inner` side by side, rows `pitch` elements apart. Null: blocks must be packed.
  void (*multiply_rows)(int64_t inner, const void* rows, int64_t pitch, const void* panel, float* c,
                        bool add);
  // bf16 only, else null. Rows of a left side as they are, `pitch` elements apart, rounded to bf16.
  void (*pack_rows)(const Part& part, uint16_t* rows, int64_t pitch);
  // f32 and bf16, else null. c [rows, columns], with pitch kPanelColumns, turned: element (i, j) to
  // to[j * pitch + i].
  void (*turn)(int64_t rows, int64_t columns, const float* c, float* to, int64_t pitch);
  // With the bits of `multiply`. `tiles`: 1 or 2 of c. Null: convolutions unfold the images.
  void (*multiply_shifted)(const ShiftedProduct& product, int tiles);
  // For threads: called before a series of multiply calls and after it.
  void (*enter)();
  void (*leave)();
  // bf16 with Bf16Sums::kPairs only, else null. With the bits of `multiply`, the left side a panel
  // too, whose columns are the 32 rows.
  void (*multiply_panels)(int64_t inner, const void* left, const void* panel, float* c,
                          bool add) = nullptr;
};

// The best that this CPU has; for bf16, with the sums of CurrentBf16Sums().
const Micro& F32Micro();
const Micro& Bf16Micro();
const Micro& Int8Micro();

// All that this CPU can run, for tests; the last is plain code.
struct MicroList {
  const Micro* micros[4];
  int count;
};
MicroList F32Micros();
MicroList Bf16Micros(Bf16Sums sums);
MicroList Int8Micros();

// Per instruction set. Their bodies are in micro_body.h.
extern const Micro kF32Avx512, kF32Avx2, kF32Baseline;
extern const Micro kBf16Avx512, kBf16Avx2, kBf16Baseline;
extern const Micro kBf16Amx;
// The same with Bf16Sums::kPairs.
extern const Micro kPairsAvx512, kPairsAvx2, kPairsBaseline;
extern const Micro kPairsAvx512Bf16;
// i8: c holds 32-bit integers. Their bodies are in micro_int8.cc, the tiles' in micro_amx.cc.
extern const Micro kInt8Amx, kInt8Vnni, kInt8Avx2, kInt8Baseline;
// Whether the CPU has AMX and the kernel lets this process use it (it is asked once).
bool CpuHasAmx();
bool CpuHasAmxInt8();

bool CpuHasVnni();
bool CpuHasFma();

}  // namespace lepton::kernels::gemm
