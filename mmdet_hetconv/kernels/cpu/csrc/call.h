// What Python passes, and what becomes of the sums.

#pragma once

#include <cstdint>
#include <cstring>

#include "number_types.h"
#include "pack.h"

// Filters of the widest panel.
#define WIDEST 32

namespace {

struct Panel {
  int64_t first;    // filter the panel starts at
  int64_t filters;  // of them used, at most width
  int64_t width;    // 2 * WIDE, WIDE or 8; of tiles 32 or 16
  int64_t channel;  // first channel of the own block
  int64_t weights;  // where its weights start: M x width for the centre, then
                    // taps x m x width for the other taps, row by row
};

// What becomes of the sums: relu(scale * (correction + sum) + bias + residual)
// of integers, relu(sum + bias + residual) of floats. All by filter.
struct Ends {
  const int32_t* correction;  // for the input's level of zero; null for floats
  const float* scale;         // null for floats
  const float* bias;          // or null
  const char* residual;       // or null
  Format residual_format, output;
  int64_t relu;
};

// The same for a panel's filters, with room for the widest.
struct PanelEnds {
  uint32_t start[WIDEST];  // where the sums start: correction, or the bias
  float scale[WIDEST], bias[WIDEST];

  PanelEnds(const Ends& all, const Panel& panel) {
    std::memset(this, 0, sizeof(*this));
    const size_t bytes = panel.filters * 4;
    const auto copy = [&](const void* from, void* to) {
      if (from)
        std::memcpy(to, static_cast<const char*>(from) + panel.first * 4, bytes);
    };
    if (all.scale) {
      copy(all.correction, start);
      copy(all.scale, scale);
      copy(all.bias, bias);
    } else {
      copy(all.bias, start);
    }
  }
};

// One convolution, as Python passes it: see abi.py, which has the same structs.
struct Call {
  int64_t compute;  // FLOAT32, BFLOAT16 or, with UINT8, integers
  Shape shape;
  Format input;  // of its own type for the first two
  const char* x;
  const uint32_t* weights;
  int64_t weight_count;  // in words
  const Panel* panel;
  int64_t panels;
  Ends ends;
  char* y;
  int64_t cache_bytes;
  int64_t threads;
  int64_t tiles;  // not 0: form the sums in AMX's tiles
};

// Write a pixel's sums for a panel, whose first `filters` are used.
template <class T, int VW, int NV>
inline __attribute__((always_inline)) void put(
    const typename T::template sums<VW>* sum, int64_t filters, const Ends& ends,
    const PanelEnds& own, const char* residual, char* y) {
  typedef typename Vector<VW>::floats V;
  const int64_t out = ends.output.bytes(), in = ends.residual_format.bytes();
  // A panel that is not full is finished in memory of its own.
  char tail[NV * VW * 4], more[NV * VW * 4];
  const bool full = filters == NV * VW;
  char* to = full ? y : tail;
  if (residual && !full) {
    std::memset(more, 0, sizeof(more));
    std::memcpy(more, residual, filters * in);
    residual = more;
  }
  for (int v = 0; v < NV; ++v) {
    V value =
        T::template finish<VW>(sum[v], own.scale + v * VW, own.bias + v * VW);
    if (residual)
      value += load<VW>(ends.residual_format, residual + v * VW * in);
    if (ends.relu) value = value < 0 ? V{} : value;  // NaN stays
    store<VW>(ends.output, value, to + v * VW * out);
  }
  if (!full) std::memcpy(y, tail, filters * out);
}

}  // namespace
