// Inner loops that are compiled once per vector instruction set and chosen at run time. They are
// written so that every set gives the same bits: fused multiply-adds only where the code says so
// (polynomials), sums in 16 interleaved parts, and no library call whose result depends on the
// vector width. Threads: pure functions of their arguments. Arrays never overlap.
#pragma once

#include <cstdint>

#include "runtime/kernels/cpu/optimizer_kernels.h"
#include "runtime/kernels/cpu/random_fill.h"

namespace lepton::kernels::simd {

using Unary = void(int64_t count, const float* x, float* y);
using Binary = void(int64_t count, const float* a, const float* b, float* y);

// Scores of attention: [keys][32 queries]. The query in column i sees the rows of the whole, of
// which the block's begin at `first`, in [begin[i], end[i]).
struct ScoreBlock {
  int64_t keys;
  float scale;
  const float* bias;  // by row of the block; null: none
  int64_t first;
  const int32_t* begin;  // null: every query sees every row
  const int32_t* end;
};

// Scores of one query, of which the keys [begin, end) count: blocks of 32 keys, whose beginnings
// lie `pitch` floats apart.
struct ScoreRow {
  int64_t begin, end;
  float scale;
  int64_t pitch;
};

// The same for the backward pass, where masks go by row: the queries in [begin[key], end[key]) see
// it, and by query: the logarithm of its sum, and dy . y.
struct SlopeBlock {
  int64_t keys;
  float scale;
  const float* bias;
  const int32_t* begin;
  const int32_t* end;
  const float* log_sums;
  const float* dots;
};

// x + bias (null: none; one row for all), rounded, to `rounded` (null: nowhere); y = f(that),
// rounded. Rows of both results lie y_pitch numbers apart.
using ActivationRows = void(int64_t rows, int64_t columns, const float* x, int64_t x_pitch,
                            const float* bias, uint16_t* rounded, uint16_t* y, int64_t y_pitch);
// dx = dy * f'(x), rounded. Rows of dx lie as those of x.
using ActivationGradRows = void(int64_t rows, int64_t columns, const uint16_t* x, int64_t x_pitch,
                                const float* dy, int64_t dy_pitch, uint16_t* dx);

// `count` runs of `length` numbers side by side, their beginnings `stride` numbers apart.
struct Runs {
  int64_t count, stride, length;
};

// 16 * vectors tiles of a channel of images for minimal filtering, and how to find their pixels.
// Lines of the images are copied to where they have zeros around them.
struct TileSpan {
  struct Line {
    int64_t from;  // in the channel of the first image
    int32_t to, count;
  };
  int64_t vectors;
  int64_t piece;          // 8, 4, 2 or 1: so many tiles lie side by side
  const int32_t* places;  // by piece, of its first tile's first pixel in the copied lines
  int64_t pitch;          // of these
  int64_t size;           // numbers of a channel's copied lines; what is not copied is 0
  const Line* lines;
  int64_t line_count;
};

// Tiles of minimal filtering: number k of tile i of channel c to
// v[k * product_pitch + c * channel_pitch + i]. Channels of x lie x_pitch apart; `copied`: memory
// for 2 * span.size floats.
using TileLoop = void(const TileSpan& span, int64_t channels, const float* x, int64_t x_pitch,
                      float* copied, float* v, int64_t product_pitch, int64_t channel_pitch);

// 32 tiles of a channel of images of bf16, whose pixels are brought to where 32 channels lie side
// by side, and how to find them there.
struct TurnedTiles {
  struct Stretch {  // up to 16 pixels side by side
    int64_t from;   // in the channel of the first image
    int32_t count;
    int32_t to[16];  // their places
  };
  const Stretch* stretches;
  int64_t stretch_count;
  const int32_t* zeros;  // places that are 0
  int64_t zero_count;
  const int32_t* tiles;  // places of their first pixels
  int64_t pitch;         // places from line to line
  int64_t places;        // in all
};

// Products are numbered 4 * row + column of a tile of 4 x 4; blocks and panels are those of
// gemm/micro.h, product_pitch numbers from product to product. `turned`: memory for 32 *
// tiles.places floats.
struct TurnedTileLoops {
  // The 4 x 4 pixels of x, as 32 rows of a left side whose inner axis are the channels, which are a
  // multiple of 32.
  void (*to_blocks)(const TurnedTiles& tiles, int64_t channels, const uint16_t* x, int64_t x_pitch,
                    float* turned, uint16_t* blocks, int64_t product_pitch);
  // As a step of the inner axis of a panel whose columns are up to 32 channels, those that are
  // missing 0: of the 4 x 4 pixels of x, of the 2 x 2 pixels of dy.
  using ToPanel = void(const TurnedTiles& tiles, int64_t channels, const uint16_t* x,
                       int64_t x_pitch, float* turned, uint16_t* panel, int64_t product_pitch);
  ToPanel* inputs_to_panel;
  ToPanel* gradients_to_panel;
  // From m[k * pitch + 32 * tile + channel] to both lines of output pixels [place][32 channels];
  // places[2 * tile] and the next one are those of a tile's left pixels.
  void (*to_pixels)(int64_t count, const float* m, int64_t pitch, const int32_t* places,
                    float* pixels);
  // pixels [count][32], rounded, to y[channel * y_pitch + i].
  void (*pixels_to_bf16)(int64_t count, int64_t channels, const float* pixels, uint16_t* y,
                         int64_t y_pitch);
  // 16 rows of `columns` numbers to to[column][16]; reads up to 15 numbers behind each row.
  void (*channels_of_taps)(int64_t columns, const float* from, int64_t pitch, float* to);
  // Transformed weights of 16 output channels and `count` input channels, an even number, as half
  // the columns of a panel. taps [count][9][16]: those of an input begin at taps[0], tap_pitch
  // apart.
  void (*weights_to_panel)(int64_t count, const float* taps, int64_t tap_pitch, uint16_t* panel,
                           int64_t product_pitch);
};

// Batch normalisation, on one channel's pixels, of f32 or (uint16_t) bf16, of which all is computed
// in f32; sums in double, of parts in single.
template <typename Number>
struct ChannelLoops {
  double (*sum)(const Runs& runs, const Number* x);
  double (*squared_distance)(const Runs& runs, double mean, const Number* x);  // sum (x - mean)^2
  void (*normalize)(const Runs& runs, float mean, float factor, float offset, const Number* x,
                    Number* y);  // y = (x - mean) * factor + offset
  // The sums of dy * (x - mean) and of dy.
  void (*norm_sums)(const Runs& runs, double mean, const Number* x, const Number* dy,
                    double* products, double* sum);
  // dx = dy * factor - (shift + (x - mean) * slope)
  void (*normalize_grad)(const Runs& runs, float mean, float factor, float shift, float slope,
                         const Number* x, const Number* dy, Number* dx);
};

struct Loops {
  const char* name;  // "avx512", "avx2", "baseline"

  Binary* add;
  Binary* mul;
  Binary* sub;
  Binary* div;
  void (*scale)(int64_t count, float factor, const float* x, float* y);
  void (*bias_add)(int64_t rows, int64_t n, const float* x, const float* bias, float* y);
  Unary* relu;
  Binary* relu_grad;  // (y, dy), as for tanh and sigmoid; gelu: (x, dy)
  Unary* gelu;
  Binary* gelu_grad;
  Unary* gelu_tanh;
  Binary* gelu_tanh_grad;  // (x, dy)
  Unary* tanh;
  Binary* tanh_grad;
  Unary* sigmoid;
  Binary* sigmoid_grad;
  Unary* silu;
  Binary* silu_grad;                                                        // (x, dy)
  void (*exp_minus)(int64_t count, float minus, const float* x, float* y);  // e^(x - minus)
  // c [rows, columns] += a [rows, inner] * b [inner, columns]; each matrix with the distance
  // between its rows; columns a multiple of 16. A row of c depends on its row of a and on b alone.
  void (*multiply_block)(int64_t rows, int64_t columns, int64_t inner, const float* a,
                         int64_t stride_a, const float* b, int64_t stride_b, float* c,
                         int64_t stride_c);
  void (*to_bf16)(int64_t count, const float* x, uint16_t* y);
  void (*to_f32)(int64_t count, const uint16_t* x, float* y);
  Unary* round_bf16;  // to the nearest bf16, as f32
  // Rectangles of `rows` rows, whose first elements lie `x_pitch` and `y_pitch` elements apart.
  void (*copy_rows)(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, float* y,
                    int64_t y_pitch);
  void (*to_bf16_rows)(int64_t rows, int64_t columns, const float* x, int64_t x_pitch, uint16_t* y,
                       int64_t y_pitch);
  void (*to_f32_rows)(int64_t rows, int64_t columns, const uint16_t* x, int64_t x_pitch, float* y,
                      int64_t y_pitch);
  // to[i] = even[i] low, odd[i] high.
  void (*interleave)(int64_t count, const uint16_t* even, const uint16_t* odd, uint32_t* to);
  // y = a + b, row by row; y's rows lie as a's.
  void (*add_rows)(int64_t rows, int64_t columns, const float* a, int64_t a_pitch, const float* b,
                   int64_t b_pitch, float* y);
  // Row i of the rectangle times factors[i], in place.
  void (*scale_rows)(int64_t rows, int64_t columns, const float* factors, float* x, int64_t pitch);
  // What surrounds an activation in bf16, at once, with the bits of one after the other.
  ActivationRows* gelu_rows;
  ActivationGradRows* gelu_grad_rows;
  ActivationRows* gelu_tanh_rows;
  ActivationGradRows* gelu_tanh_grad_rows;
  // The blocks of four random numbers from `first_block` on (random_fill.h).
  void (*dropout)(int64_t first_block, int64_t count, const RandomKey& key, float rate, float keep,
                  const float* x, float* y);
  void (*uniform)(int64_t first_block, int64_t count, const RandomKey& key, float bound, float* y);
  void (*normal)(int64_t first_block, int64_t count, const RandomKey& key, double deviation,
                 float* y);

  // Columns [begin, end) of a matrix of `n` columns, summed over its rows, times `factor`.
  void (*column_sum)(int64_t rows, int64_t n, int64_t begin, int64_t end, float factor,
                     const float* x, float* y);
  void (*row_sum)(int64_t rows, int64_t n, float factor, const float* x, float* y);

  void (*layer_norm)(int64_t rows, int64_t n, float epsilon, const float* x, const float* gain,
                     const float* bias, float* y, float* mean, float* rstd);
  // One row; adds to the gradients of gain and bias.
  void (*layer_norm_grad)(int64_t n, const float* x, const float* gain, float mean, float rstd,
                          const float* dy, float* dx, float* dgain, float* dbias);
  // One row; returns 1 / sqrt(mean of squares + epsilon).
  float (*rms_norm)(int64_t n, float epsilon, const float* x, const float* gain, float* y);
  // One row; adds to the gradient of gain.
  void (*rms_norm_grad)(int64_t n, const float* x, const float* gain, float rstd, const float* dy,
                        float* dx, float* dgain);
  // y[i] = row i of a times row i of b; rows of both lie `pitch` numbers apart. Of f32 or bf16.
  void (*dot_rows)(int64_t rows, int64_t n, const float* a, const float* b, int64_t pitch,
                   float* y);
  void (*dot_rows_bf16)(int64_t rows, int64_t n, const uint16_t* a, const uint16_t* b,
                        int64_t pitch, float* y);
  Unary* accumulate;  // y += x
  void (*softmax)(int64_t rows, int64_t n, const float* x, float* y);
  void (*log_softmax)(int64_t rows, int64_t n, const float* x, float* y);
  void (*softmax_grad)(int64_t rows, int64_t n, const float* y, const float* dy, float* dx);
  void (*log_softmax_grad)(int64_t rows, int64_t n, const float* y, const float* dy, float* dx);
  void (*cross_entropy)(int64_t rows, int64_t n, const float* x, const int32_t* labels,
                        float* losses);
  void (*cross_entropy_grad)(int64_t rows, int64_t n, const float* x, const int32_t* labels,
                             const float* dlosses, float* dx);

  // Attention, on blocks of scores.
  //   score_tops: tops[i] = the largest of itself and of what query i sees of scale * s + bias;
  //     with a bias, s becomes that, too;
  //   score_exp: p = e^(scale * s + bias - tops[i]) in place of s, after score_tops, 0 where not
  //     seen; sums[i] += p. Where `pairs` is not null, p is put there instead, in bf16, as a panel
  //     of a product (gemm/micro.h), which begins at an even row;
  //   scale_columns: x[.., i] *= factors[i].
  void (*score_tops)(const ScoreBlock& block, float* s, float* tops);
  void (*score_exp)(const ScoreBlock& block, const float* tops, float* s, float* sums,
                    uint16_t* pairs);
  void (*scale_columns)(int64_t rows, const float* factors, float* x);
  // The same of one query, with the same bits: the larger of `top` and its scores' largest; and p
  // [keys], side by side and up to whole blocks, 0 outside of [begin, end): returns sum + all p.
  float (*score_row_top)(const ScoreRow& row, const float* s, float top);
  float (*score_row_exp)(const ScoreRow& row, int64_t keys, float top, const float* s, float* p,
                         float sum);
  // p = e^(scale * s + bias - log_sum), ds = scale * p * (dp - dot); 0 where not seen. In place of
  // s and dp, or in bf16 as left sides, and ds as a panel, of products.
  void (*slopes)(const SlopeBlock& block, float* s, float* dp);
  void (*slopes_bf16)(const SlopeBlock& block, const float* s, const float* dp, uint16_t* p_tiles,
                      uint16_t* ds_tiles, uint16_t* ds_pairs);

  void (*sgd)(const SgdUpdate& update, int64_t count, float* weights, const float* gradients,
              float* velocity);
  void (*adam)(const AdamUpdate& update, int64_t count, float* weights, const float* gradients,
               float* first, float* second);
  double (*sum_of_squares)(int64_t count, const float* values);

  ChannelLoops<float> channels;
  ChannelLoops<uint16_t> channels_bf16;

  // 8-bit integers (runtime/ops/matmul_int8.h). The largest magnitude, which is a NaN's if there is
  // one.
  float (*largest)(int64_t n, const float* x);
  // words[i] = up to four numbers x[channel * stride + i], times `inverse`, rounded to 8 bits, the
  // first lowest; channels that are missing are 0.
  void (*quantize_fours)(int64_t n, int64_t channels, int64_t stride, float inverse, const float* x,
                         uint32_t* words);
  // One row; returns its scale.
  float (*quantize_row)(int64_t n, const float* x, int8_t* q);
  // Blocks of 32-bit integers, in place: element (i, j) becomes itself as a number, times
  // (row_scales[i] * column_scales[j]). Rows lie side by side.
  void (*from_int32_rows)(int64_t rows, int64_t columns, const float* row_scales,
                          const float* column_scales, float* x);

  // Convolutions of F(2 x 2, 3 x 3) (conv/winograd_kernel.h). Products are numbered 4 * row +
  // column of a tile of 4 x 4.
  //   winograd_weights: taps [count][9][16] of up to 16 output channels, of which `width` are kept,
  //     to u[k * pitch + i * stride + channel]; a stride below 16 is the width;
  //   winograd_out: from m[k * pitch + i] to both lines of output pixels, two of a tile each;
  //     `count` is rounded up to 16, reading and writing.
  //   tile_inputs: of the 4 x 4 pixels of x; tile_gradients: of the 2 x 2 pixels of dy.
  TileLoop* tile_inputs;
  TileLoop* tile_gradients;
  TurnedTileLoops turned_tiles;
  void (*winograd_weights)(int64_t count, int64_t width, int64_t stride, const float* taps,
                           float* u, int64_t pitch);
  void (*winograd_out)(int64_t count, const float* m, int64_t pitch, float* top, float* bottom);
  //   winograd_taps: from m[k * pitch + i] to taps[tap * count + i].
  void (*winograd_taps)(int64_t count, const float* m, int64_t pitch, float* taps);
};

// With the instructions for bf16 where the CPU has them.
const Loops& Avx512Loops();
const Loops& Avx2Loops();
const Loops& BaselineLoops();

// And that may be used (cpu_isa.h).
bool CpuHasAvx512();
bool CpuHasAvx512Bf16();
bool CpuHasAvx2();
// The widest that this CPU has.
const Loops& BestLoops();

}  // namespace lepton::kernels::simd
