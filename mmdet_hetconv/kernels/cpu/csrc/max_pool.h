// Max-pooling of bytes.

#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <tuple>

extern "C" {

// The largest of each window of bytes, channels last. shape: B, H, W, C, Ho,
// Wo, kh, kw, sh, sw, ph, pw, dh, dw.
void hetconv_max_pool(const int64_t* shape, const uint8_t* x, uint8_t* y,
                      int threads) {
  const auto [H, W, C] = std::tuple(shape[1], shape[2], shape[3]);
  const int64_t Ho = shape[4], Wo = shape[5];
#pragma omp parallel for num_threads(threads) if (threads > 1)
  for (int64_t row = 0; row < shape[0] * Ho; ++row) {
    const uint8_t* image = x + row / Ho * H * W * C;
    for (int64_t column = 0; column < Wo; ++column) {
      uint8_t* to = y + (row * Wo + column) * C;
      std::memset(to, 0, C);
      for (int64_t i = 0; i < shape[6]; ++i) {
        const int64_t h = row % Ho * shape[8] - shape[10] + i * shape[12];
        if (h < 0 || h >= H) continue;
        for (int64_t j = 0; j < shape[7]; ++j) {
          const int64_t w = column * shape[9] - shape[11] + j * shape[13];
          if (w < 0 || w >= W) continue;
          const uint8_t* from = image + (h * W + w) * C;
          for (int64_t c = 0; c < C; ++c) to[c] = std::max(to[c], from[c]);
        }
      }
    }
  }
}
}
