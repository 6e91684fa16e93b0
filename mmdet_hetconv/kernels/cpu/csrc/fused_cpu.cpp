// Fused heterogeneous convolution for CPUs, channels last, of several number
// types.
//
// One pass: every output value is accumulated in registers over all M channels
// at the centre tap and over the own block's m channels at the other taps;
// bias, residual and ReLU follow before the one store. An implicit GEMM: a
// tile of up to PX output pixels of one row times a panel of NV * VW filters.
//
// Input and weights are read in words of 32 bits: one float, or two bfloat16,
// or four bytes of neighbouring channels, whose products one instruction adds
// up. So the loops are the same for every type, and M and m count words. Bytes
// may be made of floats while the input is packed, and floats or bytes of the
// sums.
//
// B / M / N: images, input words, filters; m: words of a block. A "panel" is a
// run of filters inside one block that share their weights' layout, a "tile" a
// run of output pixels inside one row, a "strip" all tiles below each other.
//
// Shape: x (B, H, W, M), y and residual (B, Ho, Wo, N), all dense.

#include <cstdint>
#include <cstring>

#include "call.h"
#include "max_pool.h"
#include "number_types.h"
#include "pack.h"
#include "tiles.h"

// Keep the compiler from deriving one pointer from another.
#define OPAQUE(pointer) __asm__("" : "+r"(pointer))

namespace {

// One panel on one tile. x: the packed tile, (kh, columns, pitch).
template <class T, int VW, int NV, int PX>
void multiply(const Shape& s, const Panel& panel, const uint32_t* x,
              int64_t columns, int64_t pitch, const uint32_t* weights,
              const Ends& ends, const PanelEnds& own, const char* residual,
              char* y) {
  typedef typename T::template sums<VW> S;
  typedef typename Vector<VW>::words W;
  const int64_t out = ends.output.bytes(), in = ends.residual_format.bytes();
  y += panel.first * out;
  if (residual) residual += panel.first * in;
  S sum[PX][NV];
  for (int i = 0; i < PX; ++i)
    for (int v = 0; v < NV; ++v) sum[i][v] = read<S>(own.start + v * VW);

  // The lines of the output come from memory while the sums are formed.
  for (int i = 0; i < PX; ++i)
    for (int v = 0; v < NV; ++v) {
      __builtin_prefetch(y + (i * s.N + v * VW) * out, 1);
      if (residual) __builtin_prefetch(residual + (i * s.N + v * VW) * in);
    }

  // Pixels are addressed three to a base pointer, as base, base + step and
  // base + 2 * step: one pointer each would not fit into the registers.
  constexpr int BASES = (PX + 2) / 3;
  const int64_t step = s.sw * pitch;
  const uint32_t* w = weights + panel.weights;
  const int64_t centre = s.kh / 2 * s.kw + s.kw / 2;
  // Tap -1 is the centre with all channels; the loop over the taps is one
  // loop so that the sums stay in registers from the first to the last.
  for (int64_t tap = -1; tap < s.kh * s.kw; ++tap) {
    if (tap == centre) continue;
    const int64_t at = tap < 0 ? centre : tap;
    const uint32_t* a = x + (at / s.kw * columns + at % s.kw * s.dw) * pitch +
                        (tap < 0 ? 0 : panel.channel);
    const uint32_t* base[BASES];
    for (int j = 0; j < BASES; ++j) {
      base[j] = a + 3 * j * step;
      OPAQUE(base[j]);
    }
#pragma GCC unroll 2
    for (int64_t c = tap < 0 ? s.M : s.m; c > 0; --c, w += NV * VW) {
      W k[NV];
      for (int v = 0; v < NV; ++v) std::memcpy(&k[v], w + v * VW, sizeof(W));
#pragma GCC unroll 32
      for (int i = 0; i < PX; ++i) {
        const uint32_t word = base[i / 3][i % 3 * step];
#pragma GCC unroll 2
        for (int v = 0; v < NV; ++v)
          sum[i][v] = T::template add<VW>(sum[i][v], word, k[v]);
      }
#pragma GCC unroll 16
      for (int j = 0; j < BASES; ++j) ++base[j];
    }
  }

  for (int i = 0; i < PX; ++i)
    put<T, VW, NV>(sum[i], panel.filters, ends, own,
                   residual ? residual + i * s.N * in : nullptr,
                   y + i * s.N * out);
}

template <class T>
struct Tables {
  typedef void (*Kernel)(const Shape&, const Panel&, const uint32_t*, int64_t,
                         int64_t, const uint32_t*, const Ends&,
                         const PanelEnds&, const char*, char*);
  Kernel two[T::ACCUMULATORS], one[T::ACCUMULATORS], narrow[T::ACCUMULATORS];

  // Kernels for 1 ... PX pixels, number i - 1 for i.
  template <int VW, int NV, int PX>
  struct Fill {
    static void in(Kernel* table) {
      table[PX - 1] = multiply<T, VW, NV, PX>;
      Fill<VW, NV, PX - 1>::in(table);
    }
  };
  template <int VW, int NV>
  struct Fill<VW, NV, 0> {
    static void in(Kernel*) {}
  };

  Tables() {
    Fill<WIDE, 2, T::ACCUMULATORS / 2>::in(two);
    Fill<WIDE, 1, T::ACCUMULATORS>::in(one);
    Fill<8, 1, T::ACCUMULATORS>::in(narrow);
  }
  Kernel pick(int64_t width, int64_t pixels) const {
    const Kernel* table = width == 2 * WIDE ? two : width == WIDE ? one : narrow;
    return table[pixels - 1];
  }
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

template <class T>
int convolve(const Call& call) {
  static const Tables<T> tables;
  const Shape& s = call.shape;
  const Format& format = call.input;
  const Ends& ends = call.ends;
  const Panel* const panel = call.panel;
  const int64_t panels = call.panels;
  const int threads = static_cast<int>(call.threads);

  const bool tiled = call.tiles != 0;
  if (tiled && !tiles_fit<T>(s, panel, panels)) return 2;
  int64_t widest = 0, filters = 0;
  const int64_t words = s.M + (s.kh * s.kw - 1) * s.m;  // of one filter
  for (int64_t i = 0; i < panels; ++i) {
    if (panel[i].width > widest) widest = panel[i].width;
    filters += panel[i].filters;
    if (panel[i].channel < 0 || panel[i].first < 0 || panel[i].weights < 0 ||
        panel[i].width < 1 || panel[i].width > (tiled ? WIDEST : 2 * WIDE) ||
        panel[i].filters < 1 || panel[i].filters > panel[i].width ||
        panel[i].channel + s.m > s.M ||
        panel[i].first + panel[i].filters > s.N ||
        panel[i].weights + panel[i].width * words > call.weight_count)
      return 2;
  }
  if (filters != s.N) return 2;
  // Where rows of packed pixels lie a step apart from end to end, tiles run on
  // from one to the next: they need no strips of their own width.
  const bool flat = tiled && s.sw == 1 && s.sh == 1 && s.dh == 1;
  const int64_t most = flat                  ? 4 * TILE
                       : tiled               ? 2 * TILE
                       : widest == 2 * WIDE ? T::ACCUMULATORS / 2
                                             : T::ACCUMULATORS;

  // Strips of equal width, so that none is a small remainder.
  const int64_t strips = divide_up(s.Wo, most);
  const int64_t columns =
      (divide_up(s.Wo, strips) - 1) * s.sw + (s.kw - 1) * s.dw + 1;
  // Pixels 2 KiB apart would share the same few sets of the level-1 cache.
  const int64_t pitch = s.M < 256 ? s.M : s.M + 16;
  const int64_t row_words = columns * pitch;

  // A group is some tiles below each other in a strip. Its input is packed
  // once, and it shares every panel's weights while they are in cache. With
  // dilation each tile has rows of its own, else neighbours share them.
  const bool shared = s.dh == 1 && s.sh <= s.kh;
  const int64_t fitting = call.cache_bytes / (row_words * 4);
  int64_t high = shared ? (fitting - s.kh) / s.sh + 1 : fitting / s.kh;
  if (high > s.Ho) high = s.Ho;
  if (high < 1) high = 1;
  // Groups for every thread, where that leaves them some tiles.
  const int64_t wanted = threads > 1 ? 4 * threads : 1;
  const int64_t even = divide_up(s.B * s.Ho * strips, wanted);
  if (high > even && even >= 4) high = even;
  const int64_t chunks = divide_up(s.Ho, high);
  const int64_t groups = s.B * strips * chunks;
  const int64_t tallest = divide_up(s.Ho, chunks);
  const int64_t rows =
      shared ? (tallest - 1) * s.sh + s.kh : tallest * s.kh;
  // Too few groups to go round: share the panels out too.
  int64_t parts = divide_up(wanted, groups);
  if (parts > panels) parts = panels;

  int failed = 0;
#pragma omp parallel num_threads(threads) \
    if (threads > 1) reduction(| : failed)
  {
    // Tiles read pixels beyond the last one, whose sums are not used.
    uint32_t* packed =
        scratch(rows * row_words + (tiled ? 2 * TILE * s.sw * pitch : 0));
    const ConfiguredTiles configured(tiled ? tile_words(s) : 0);
    int64_t held = -1;  // the group that is packed
#pragma omp for schedule(dynamic)
    for (int64_t task = 0; task < groups * parts; ++task) {
      if (!packed) {
        failed = 1;
        continue;
      }
      const int64_t group = task / parts, part = task % parts;
      const int64_t chunk = group % chunks;
      const int64_t strip = group / chunks % strips;
      const int64_t b = group / chunks / strips;
      const int64_t top = chunk * s.Ho / chunks;
      const int64_t tiles = (chunk + 1) * s.Ho / chunks - top;
      const int64_t ox = strip * s.Wo / strips;
      const int64_t pixels = (strip + 1) * s.Wo / strips - ox;
      const char* image = call.x + b * s.H * s.W * s.channels * format.bytes();
      const int64_t left = ox * s.sw - s.pw;
      if (held != group) {
        if (shared)
          pack<T>(s, format, image, top * s.sh - s.ph, 1,
                  (tiles - 1) * s.sh + s.kh, left, columns, pitch, packed);
        else
          for (int64_t i = 0; i < tiles; ++i)
            pack<T>(s, format, image, (top + i) * s.sh - s.ph, s.dh, s.kh,
                    left, columns, pitch, packed + i * s.kh * row_words);
        held = group;
      }
      const int64_t apart = (shared ? s.sh : s.kh) * row_words;
      for (int64_t q = panels * part / parts; q < panels * (part + 1) / parts;
           ++q) {
        const PanelEnds own(ends, panel[q]);
        const auto kernel =
            tiled ? nullptr : tables.pick(panel[q].width, pixels);
        for (int64_t i = 0; i < (flat ? 1 : tiles); ++i) {
          const int64_t at = ((b * s.Ho + top + i) * s.Wo + ox) * s.N;
          const char* residual =
              ends.residual ? ends.residual + at * ends.residual_format.bytes()
                            : nullptr;
          char* y = call.y + at * ends.output.bytes();
          if (tiled)
            multiply_tiles<T>(s, panel[q], packed + i * apart, columns, pitch,
                              call.weights, ends, own, pixels,
                              flat ? tiles : 1, residual, y);
          else
            kernel(s, panel[q], packed + i * apart, columns, pitch,
                   call.weights, ends, own, residual, y);
        }
      }
    }
  }
  return failed;
}

}  // namespace

extern "C" {

// Widest panel of this build, in filters.
int64_t hetconv_panel_width() { return 2 * WIDE; }

// Numbers of 8 bits in a word of the weights; 2 of 16 bits where no
// instruction multiplies bytes.
int64_t hetconv_bytes_per_word() { return Int8::PER_WORD; }

// The largest level of a weight of 8 bits that this build multiplies exactly.
int64_t hetconv_most_weight() { return MOST_WEIGHT; }

// Whether this build and this processor form sums in AMX's tiles.
int64_t hetconv_has_tiles() { return has_tiles(); }

// The bytes of the structs that Python fills: Format, Shape, Ends, Call.
void hetconv_struct_sizes(int64_t sizes[4]) {
  sizes[0] = sizeof(Format);
  sizes[1] = sizeof(Shape);
  sizes[2] = sizeof(Ends);
  sizes[3] = sizeof(Call);
}

// 0; 1 if memory ran out; 2 if the panels are not of these weights.
int hetconv_fused(const Call* call) {
  switch (call->compute) {
    case FLOAT32: return convolve<Float32>(*call);
    case BFLOAT16: return convolve<BFloat16>(*call);
    default: return convolve<Int8>(*call);
  }
}

}
