// The number types of the fused convolution: how a word of the input is
// multiplied with one of each filter, and how sums are stored and read again.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX512BF16__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

namespace {

template <int VW>
struct Vector {
  typedef float sums __attribute__((vector_size(VW * 4)));
  typedef uint32_t words __attribute__((vector_size(VW * 4)));
  typedef uint16_t halves __attribute__((vector_size(VW * 2)));
};

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

// A number type says how a word of the input is multiplied with one of each
// filter, and how sums are stored as it and read again.
struct Float32 {
  typedef float value;
  template <int VW>
  static typename Vector<VW>::sums add(typename Vector<VW>::sums sum,
                                       uint32_t word,
                                       typename Vector<VW>::words k) {
    return sum + bits<float>(word) * bits<typename Vector<VW>::sums>(k);
  }
  template <int VW>
  static typename Vector<VW>::sums load(const value* from) {
    typename Vector<VW>::sums sums;
    std::memcpy(&sums, from, sizeof(sums));
    return sums;
  }
  template <int VW>
  static void store(typename Vector<VW>::sums sums, value* to) {
    std::memcpy(to, &sums, sizeof(sums));
  }
};

// sum + the two products of a word of bfloat16.
template <int VW>
struct Dot {
  typedef typename Vector<VW>::sums V;
  static V add(V sum, uint32_t word, typename Vector<VW>::words k) {
    sum += bits<float>(word << 16) * bits<V>(k << 16);
    return sum + bits<float>(word & 0xffff0000u) * bits<V>(k & 0xffff0000u);
  }
};
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
template <>
struct Dot<16> {
  typedef Vector<16>::sums V;
  static V add(V sum, uint32_t word, Vector<16>::words k) {
    return bits<V>(_mm512_dpbf16_ps(bits<__m512>(sum),
                                    bits<__m512bh>(_mm512_set1_epi32(word)),
                                    bits<__m512bh>(k)));
  }
};
template <>
struct Dot<8> {
  typedef Vector<8>::sums V;
  static V add(V sum, uint32_t word, Vector<8>::words k) {
    return bits<V>(_mm256_dpbf16_ps(bits<__m256>(sum),
                                    bits<__m256bh>(_mm256_set1_epi32(word)),
                                    bits<__m256bh>(k)));
  }
};
#endif

struct BFloat16 {
  typedef uint16_t value;
  template <int VW>
  static typename Vector<VW>::sums add(typename Vector<VW>::sums sum,
                                       uint32_t word,
                                       typename Vector<VW>::words k) {
    return Dot<VW>::add(sum, word, k);
  }
  template <int VW>
  static typename Vector<VW>::sums load(const value* from) {
    typename Vector<VW>::halves halves;
    std::memcpy(&halves, from, sizeof(halves));
    return bits<typename Vector<VW>::sums>(
        __builtin_convertvector(halves, typename Vector<VW>::words) << 16);
  }
  // To the nearest, ties to even; NaN stays NaN.
  template <int VW>
  static void store(typename Vector<VW>::sums sums, value* to) {
    typedef typename Vector<VW>::words U;
    const U word = bits<U>(sums);
    const U rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
    const U quiet = word >> 16 | 0x40u;
    const U chosen = (word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
    const auto halves =
        __builtin_convertvector(chosen, typename Vector<VW>::halves);
    std::memcpy(to, &halves, sizeof(halves));
  }
};

}  // namespace
