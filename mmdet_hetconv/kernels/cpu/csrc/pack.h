// The input of a tile as words, with zeros for the padding.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "number_types.h"

namespace {

struct Shape {
  int64_t B, H, W, M, Ho, Wo, N;
  int64_t kh, kw, sh, sw, ph, pw, dh, dw;
  int64_t m;  // words of a block
  int64_t channels;  // numbers of an input pixel
};

struct Scratch {
  uint32_t* memory = nullptr;
  int64_t size = 0;
  ~Scratch() { std::free(memory); }
};

// Memory of this thread, kept between calls until the thread ends; null if
// there is none, which the next call tries again.
uint32_t* scratch(int64_t words) {
  static thread_local Scratch kept;
  if (words > kept.size) {
    std::free(kept.memory);
    const int64_t size = (words + 15) / 16 * 16;
    kept.memory = static_cast<uint32_t*>(std::aligned_alloc(64, size * 4));
    kept.size = kept.memory ? size : 0;
  }
  return kept.memory;
}

// Some rows of the input, from column `left` on, with zeros for the padding:
// (count, columns, pitch); row i is input row first + i * step.
template <class T>
void pack(const Shape& s, const Format& format, const char* image,
          int64_t first, int64_t step, int64_t count, int64_t left,
          int64_t columns, int64_t pitch, uint32_t* to) {
  const int64_t before = left < 0 ? (-left < columns ? -left : columns) : 0;
  int64_t end = s.W - left < columns ? s.W - left : columns;
  if (end < before) end = before;
  const uint32_t zero = T::fill(format);
  const int64_t pixel = s.channels * format.bytes();
  const bool whole = pitch * T::PER_WORD == s.channels;
  for (int64_t i = 0; i < count; ++i, to += columns * pitch) {
    const int64_t row = first + i * step;
    if (row < 0 || row >= s.H) {
      std::fill_n(to, columns * pitch, zero);
      continue;
    }
    const char* from = image + (row * s.W + left) * pixel;
    std::fill_n(to, before * pitch, zero);
    if (whole)
      T::pack(format, from + before * pixel, (end - before) * s.channels,
              to + before * pitch);
    else
      for (int64_t x = before; x < end; ++x)
        T::pack(format, from + x * pixel, s.channels, to + x * pitch);
    std::fill_n(to + end * pitch, (columns - end) * pitch, zero);
  }
}

}  // namespace
