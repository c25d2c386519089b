// The loops that round to bf16, with the instructions for it.
#include "runtime/kernels/cpu/simd/loops_body.h"

namespace lepton::kernels::simd {

void UseBf16Instructions(Loops& loops) {
  loops.to_bf16 = ToBf16Loop;
  loops.round_bf16 = RoundBf16Loop;
  loops.to_bf16_rows = ToBf16RowsLoop;
  loops.gelu_rows = GeluRowsLoop<kGeluTail>;
  loops.gelu_grad_rows = GeluGradRowsLoop<kGeluTailSlope>;
  loops.gelu_tanh_rows = GeluRowsLoop<kGeluTanhTail>;
  loops.gelu_tanh_grad_rows = GeluGradRowsLoop<kGeluTanhTailSlope>;
  loops.score_exp = ScoreExpLoop;
  loops.slopes_bf16 = SlopesBf16Loop;
  loops.channels_bf16 = MakeChannelLoops<uint16_t>();
  loops.turned_tiles = MakeTurnedTileLoops();
}

}  // namespace lepton::kernels::simd
