// Sums of bfloat16 and of bytes in AMX's tiles: 16 pixels times 16 filters.
//
// Four tiles of sums, of two times 16 pixels and two times 16 filters, take one
// product per step of up to 16 words and tap: first the centre's M words, then
// each other tap's m. Packed pixels and panels lie as for vectors: the rows of
// a tile of the input are pixels, those of a tile of weights words of a panel.
//
// The instructions are gcc's intrinsics, from version 11 on, or with
// EMULATE_TILES plain C++ that runs on every processor, for tests.

#pragma once

#include <cstdint>
#include <type_traits>

#include "call.h"

#define TILE 16  // rows of a tile, and words of a row

#if defined(EMULATE_TILES)

#define FOR_TILES

namespace {

struct EmulatedTile {
  int rows, words;
  uint32_t at[TILE][TILE];
};
thread_local EmulatedTile emulated[8];

void configure_tiles(int words) {
  for (int t = 0; t < 8; ++t) {
    emulated[t].rows = t < 6 ? TILE : words;
    emulated[t].words = t == 4 || t == 5 ? words : TILE;
  }
}

void load_tile(int t, const void* from, int64_t stride) {
  for (int i = 0; i < emulated[t].rows; ++i)
    std::memcpy(emulated[t].at[i], static_cast<const char*>(from) + i * stride,
                emulated[t].words * 4);
}

void store_tile(int t, void* to, int64_t stride) {
  for (int i = 0; i < emulated[t].rows; ++i)
    std::memcpy(static_cast<char*>(to) + i * stride, emulated[t].at[i],
                emulated[t].words * 4);
}

template <class Add>
void multiply_emulated(int c, int a, int b, const Add& add) {
  for (int i = 0; i < emulated[a].rows; ++i)
    for (int k = 0; k < emulated[a].words; ++k)
      for (int j = 0; j < emulated[b].words; ++j)
        emulated[c].at[i][j] =
            add(emulated[c].at[i][j], emulated[a].at[i][k], emulated[b].at[k][j]);
}

// Unsigned bytes times signed ones.
uint32_t add_bytes(uint32_t sum, uint32_t x, uint32_t w) {
  for (int shift = 0; shift < 32; shift += 8)
    sum += static_cast<int32_t>(x >> shift & 0xff) *
           static_cast<int8_t>(w >> shift & 0xff);
  return sum;
}

uint32_t add_bfloat16(uint32_t sum, uint32_t x, uint32_t w) {
  float value = bits<float>(sum);
  value += bits<float>(x << 16) * bits<float>(w << 16);
  value += bits<float>(x & 0xffff0000u) * bits<float>(w & 0xffff0000u);
  return bits<uint32_t>(value);
}

bool has_tiles() { return true; }
void release_tiles() {}

}  // namespace

#define LOAD_TILE(t, from, stride) load_tile(t, from, stride)
#define STORE_TILE(t, to, stride) store_tile(t, to, stride)
#define MULTIPLY_BYTES(c, a, b) multiply_emulated(c, a, b, add_bytes)
#define MULTIPLY_BFLOAT16(c, a, b) multiply_emulated(c, a, b, add_bfloat16)

#elif defined(__x86_64__) && defined(__linux__) && !defined(__clang__) && \
    defined(__GNUC__) && __GNUC__ >= 11

#include <sys/syscall.h>
#include <unistd.h>

#define FOR_TILES __attribute__((target("amx-tile,amx-int8,amx-bf16")))

namespace {

struct TileConfiguration {
  uint8_t palette = 1, start = 0, reserved[14] = {0};
  uint16_t row_bytes[16] = {0};
  uint8_t rows[16] = {0};
};

FOR_TILES void configure_tiles(int words) {
  TileConfiguration all;
  for (int t = 0; t < 8; ++t) {
    all.rows[t] = static_cast<uint8_t>(t < 6 ? TILE : words);
    all.row_bytes[t] = static_cast<uint16_t>(4 * (t == 4 || t == 5 ? words : TILE));
  }
  _tile_loadconfig(&all);
}

FOR_TILES void release_tiles() { _tile_release(); }

// Linux grants a process the tiles' state once it asks.
bool has_tiles() {
  constexpr int REQUEST = 0x1023, TILE_DATA = 18;
  static const bool granted = __builtin_cpu_supports("amx-tile") &&
                              __builtin_cpu_supports("amx-int8") &&
                              __builtin_cpu_supports("amx-bf16") &&
                              syscall(SYS_arch_prctl, REQUEST, TILE_DATA) == 0;
  return granted;
}

}  // namespace

#define LOAD_TILE(t, from, stride) _tile_loadd(t, from, stride)
#define STORE_TILE(t, to, stride) _tile_stored(t, to, stride)
#define MULTIPLY_BYTES(c, a, b) _tile_dpbusd(c, a, b)
#define MULTIPLY_BFLOAT16(c, a, b) _tile_dpbf16ps(c, a, b)

#else

#define FOR_TILES
#define LOAD_TILE(t, from, stride) (void)0
#define STORE_TILE(t, to, stride) (void)0
#define MULTIPLY_BYTES(c, a, b) (void)0
#define MULTIPLY_BFLOAT16(c, a, b) (void)0

namespace {
void configure_tiles(int) {}
void release_tiles() {}
bool has_tiles() { return false; }
}  // namespace

#endif

#define MULTIPLY_TILES(c, a, b)                \
  do {                                         \
    if constexpr (std::is_same<T, Int8>::value) { \
      MULTIPLY_BYTES(c, a, b);                 \
    } else {                                   \
      MULTIPLY_BFLOAT16(c, a, b);              \
    }                                          \
  } while (0)

namespace {

// Tiles of a thread, while this lives. words: of a step, 0 for none.
struct ConfiguredTiles {
  const bool used;
  explicit ConfiguredTiles(int64_t words) : used(words > 0) {
    if (used) configure_tiles(static_cast<int>(words));
  }
  ~ConfiguredTiles() {
    if (used) release_tiles();
  }
};

// Words of a step, which divide a block's; 0 if none does.
int64_t tile_words(const Shape& s) {
  return s.m % TILE == 0 ? TILE : s.m % (TILE / 2) == 0 ? TILE / 2 : 0;
}

template <class T>
bool tiles_fit(const Shape& s, const Panel* panel, int64_t panels) {
  if (std::is_same<T, Float32>::value) return false;
  if (std::is_same<T, Int8>::value && T::PER_WORD != 4) return false;
  const int64_t step = tile_words(s);
  if (!has_tiles() || !step || s.M % step) return false;
  for (int64_t i = 0; i < panels; ++i)
    if ((panel[i].width != TILE && panel[i].width != 2 * TILE) ||
        panel[i].filters != panel[i].width)
      return false;
  return true;
}

// The sums of 32 pixels, or 16, times all filters of a panel, 32 or 16.
template <class T, bool PIXELS, bool FILTERS>
FOR_TILES void form_sums(const Shape& s, const Panel& panel, const uint32_t* x,
                         int64_t columns, int64_t pitch,
                         const uint32_t* weights, const PanelEnds& own,
                         uint32_t (*sums)[2 * TILE]) {
  // A stride of 0 gives every pixel the same start.
  LOAD_TILE(0, own.start, 0);
  if (FILTERS) LOAD_TILE(1, own.start + TILE, 0);
  if (PIXELS) LOAD_TILE(2, own.start, 0);
  if (PIXELS && FILTERS) LOAD_TILE(3, own.start + TILE, 0);
  const int64_t words = tile_words(s), apart = s.sw * pitch;
  const uint32_t* w = weights + panel.weights;
  const int64_t centre = s.kh / 2 * s.kw + s.kw / 2;
  for (int64_t tap = -1; tap < s.kh * s.kw; ++tap) {  // -1 is the centre
    if (tap == centre) continue;
    const int64_t at = tap < 0 ? centre : tap;
    const uint32_t* a = x + (at / s.kw * columns + at % s.kw * s.dw) * pitch +
                        (tap < 0 ? 0 : panel.channel);
    for (int64_t c = tap < 0 ? s.M : s.m; c > 0;
         c -= words, a += words, w += words * panel.width) {
      LOAD_TILE(4, a, apart * 4);
      LOAD_TILE(6, w, panel.width * 4);
      MULTIPLY_TILES(0, 4, 6);
      if (FILTERS) {
        LOAD_TILE(7, w + TILE, panel.width * 4);
        MULTIPLY_TILES(1, 4, 7);
      }
      if (PIXELS) {
        LOAD_TILE(5, a + TILE * apart, apart * 4);
        MULTIPLY_TILES(2, 5, 6);
        if (FILTERS) MULTIPLY_TILES(3, 5, 7);
      }
    }
  }
  STORE_TILE(0, sums[0], 2 * TILE * 4);
  if (FILTERS) STORE_TILE(1, sums[0] + TILE, 2 * TILE * 4);
  if (PIXELS) STORE_TILE(2, sums[TILE], 2 * TILE * 4);
  if (PIXELS && FILTERS) STORE_TILE(3, sums[TILE] + TILE, 2 * TILE * 4);
}

template <class T, int FILTERS>
void put_tiles(const uint32_t* sums, const Ends& ends, const PanelEnds& own,
               const char* residual, char* y) {
  typedef typename T::template sums<WIDE> S;
  S sum[FILTERS / WIDE];
  for (int v = 0; v < FILTERS / WIDE; ++v) sum[v] = read<S>(sums + v * WIDE);
  put<T, WIDE, FILTERS / WIDE>(sum, FILTERS, ends, own, residual, y);
}

// One panel on `pixels` of each of some rows that lie below each other.
template <class T>
void multiply_tiles(const Shape& s, const Panel& panel, const uint32_t* x,
                    int64_t columns, int64_t pitch, const uint32_t* weights,
                    const Ends& ends, const PanelEnds& own, int64_t pixels,
                    int64_t rows, const char* residual, char* y) {
  const auto form = [&](auto first, auto second) {
    return form_sums<T, decltype(first)::value, decltype(second)::value>;
  };
  const std::true_type yes;
  const std::false_type no;
  const bool wide = panel.width == 2 * TILE;
  const auto both = wide ? form(yes, yes) : form(yes, no);
  const auto one = wide ? form(no, yes) : form(no, no);
  y += panel.first * ends.output.bytes();
  if (residual) residual += panel.first * ends.residual_format.bytes();
  // Positions between the rows' pixels are summed up, too, and left out.
  const int64_t count = (rows - 1) * columns + pixels;
  alignas(64) uint32_t sums[2 * TILE][2 * TILE];
  for (int64_t first = 0; first < count; first += 2 * TILE) {
    const auto run = count - first > TILE ? both : one;
    run(s, panel, x + first * s.sw * pitch, columns, pitch, weights, own, sums);
    for (int64_t i = 0; i < 2 * TILE && first + i < count; ++i) {
      const int64_t row = (first + i) / columns, column = (first + i) % columns;
      if (rows > 1 && column >= pixels) continue;
      const int64_t at = rows > 1 ? (row * s.Wo + column) * s.N : (first + i) * s.N;
      const char* extra =
          residual ? residual + at * ends.residual_format.bytes() : nullptr;
      char* to = y + at * ends.output.bytes();
      if (wide)
        put_tiles<T, 2 * TILE>(sums[i], ends, own, extra, to);
      else
        put_tiles<T, TILE>(sums[i], ends, own, extra, to);
    }
  }
}

}  // namespace
