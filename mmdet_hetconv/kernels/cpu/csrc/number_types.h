// The number types of the fused convolution: how the input is turned into
// words, how a word is multiplied with one of each filter, and how sums become
// numbers in memory.

#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define WIDE 16       // floats of the widest vector
#define REGISTERS 28  // accumulators that fit beside the operands
#else
#define WIDE 8
#define REGISTERS 12
#endif

namespace {

// How numbers lie in memory: float32, bfloat16, or 8 bits q without sign that
// stand for scale * (q - zero).
enum Type : int64_t { FLOAT32, BFLOAT16, UINT8 };

struct Format {
  int64_t type;
  float scale, inverse, zero;  // inverse: of the scale
  int64_t bytes() const { return type == FLOAT32 ? 4 : type == BFLOAT16 ? 2 : 1; }
};

template <int VW>
struct Vector {
  typedef float floats __attribute__((vector_size(VW * 4)));
  typedef int32_t integers __attribute__((vector_size(VW * 4)));
  typedef uint32_t words __attribute__((vector_size(VW * 4)));
  typedef uint16_t halves __attribute__((vector_size(VW * 2)));
  typedef uint8_t quarters __attribute__((vector_size(VW)));
};

template <class To, class From>
To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <class V>
V read(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

// VW numbers as floats.
template <int VW>
typename Vector<VW>::floats load(const Format& format, const char* from) {
  typedef typename Vector<VW>::floats V;
  typedef typename Vector<VW>::words U;
  if (format.type == FLOAT32) return read<V>(from);
  if (format.type == BFLOAT16)
    return bits<V>(__builtin_convertvector(
                       read<typename Vector<VW>::halves>(from), U) << 16);
  const V q = __builtin_convertvector(
      __builtin_convertvector(read<typename Vector<VW>::quarters>(from),
                              typename Vector<VW>::integers), V);
  return (q - format.zero) * format.scale;
}

// The nearest of 0 ... 255, ties to even; NaN becomes 0.
template <int VW>
typename Vector<VW>::integers quantize(const Format& format,
                                       typename Vector<VW>::floats value) {
  typedef typename Vector<VW>::floats V;
  typedef typename Vector<VW>::integers I;
  // Beyond 2 ** 23 floats are integers: the sum is rounded to one.
  const float magic = 12582912.0f;
  V q = value * format.inverse + format.zero;
  q = q > 0 ? q : V{};
  q = q < 255 ? q : V{} + 255;
  return bits<I>(q + magic) - bits<I>(V{} + magic);
}

// bfloat16 to the nearest, ties to even; NaN stays NaN.
template <int VW>
typename Vector<VW>::halves round_to_bfloat16(typename Vector<VW>::floats value) {
  typedef typename Vector<VW>::words U;
  const U word = bits<U>(value);
  const U rounded = (word + 0x7fffu + (word >> 16 & 1u)) >> 16;
  const U quiet = word >> 16 | 0x40u;
  const U chosen = (word & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
  return __builtin_convertvector(chosen, typename Vector<VW>::halves);
}

template <int VW>
void store(const Format& format, typename Vector<VW>::floats value, char* to) {
  if (format.type == FLOAT32) {
    std::memcpy(to, &value, sizeof(value));
  } else if (format.type == BFLOAT16) {
    const auto halves = round_to_bfloat16<VW>(value);
    std::memcpy(to, &halves, sizeof(halves));
  } else {
    const auto quarters =
        __builtin_convertvector(quantize<VW>(format, value),
                                typename Vector<VW>::quarters);
    std::memcpy(to, &quarters, sizeof(quarters));
  }
}

// A type of computation says how many numbers a word of 32 bits holds, how
// numbers become words, how a word of the input and one of each filter add to
// a sum, and what float the sum is.
struct Float32 {
  static constexpr int64_t PER_WORD = 1;
  static constexpr int ACCUMULATORS = REGISTERS;
  template <int VW>
  using sums = typename Vector<VW>::floats;
  template <int VW>
  static sums<VW> add(sums<VW> sum, uint32_t word, typename Vector<VW>::words k) {
    return sum + bits<float>(word) * bits<sums<VW>>(k);
  }
  template <int VW>
  static sums<VW> finish(sums<VW> sum, const float*, const float*) {
    return sum;
  }
  static uint32_t fill(const Format&) { return 0; }
  static void pack(const Format&, const char* from, int64_t count, uint32_t* to) {
    std::memcpy(to, from, count * 4);
  }
};

// sum + the two products of a word of bfloat16.
template <int VW>
struct Dot {
  typedef typename Vector<VW>::floats V;
  static V add(V sum, uint32_t word, typename Vector<VW>::words k) {
    sum += bits<float>(word << 16) * bits<V>(k << 16);
    return sum + bits<float>(word & 0xffff0000u) * bits<V>(k & 0xffff0000u);
  }
};
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
template <>
struct Dot<16> {
  typedef Vector<16>::floats V;
  static V add(V sum, uint32_t word, Vector<16>::words k) {
    return bits<V>(_mm512_dpbf16_ps(bits<__m512>(sum),
                                    bits<__m512bh>(_mm512_set1_epi32(word)),
                                    bits<__m512bh>(k)));
  }
};
template <>
struct Dot<8> {
  typedef Vector<8>::floats V;
  static V add(V sum, uint32_t word, Vector<8>::words k) {
    return bits<V>(_mm256_dpbf16_ps(bits<__m256>(sum),
                                    bits<__m256bh>(_mm256_set1_epi32(word)),
                                    bits<__m256bh>(k)));
  }
};
#endif

struct BFloat16 {
  static constexpr int64_t PER_WORD = 2;
  static constexpr int ACCUMULATORS = REGISTERS;
  template <int VW>
  using sums = typename Vector<VW>::floats;
  template <int VW>
  static sums<VW> add(sums<VW> sum, uint32_t word, typename Vector<VW>::words k) {
    return Dot<VW>::add(sum, word, k);
  }
  template <int VW>
  static sums<VW> finish(sums<VW> sum, const float*, const float*) {
    return sum;
  }
  static uint32_t fill(const Format&) { return 0; }
  static void pack(const Format&, const char* from, int64_t count, uint32_t* to) {
    if (count % 2) to[count / 2] = 0;
    std::memcpy(to, from, count * 2);
  }
};

// sum + the products of a word of integers: four unsigned bytes times four
// signed ones where there are instructions for that, else two times two of 16
// bits. All are exact: AVX2 adds pairs of products in 16 bits, which those with
// weights of 7 bits fit, 2 * 255 * 63 < 2 ** 15.
#if (defined(__AVX512VNNI__) && defined(__AVX512VL__)) || defined(__AVXVNNI__)
typedef uint8_t Packed;
constexpr int64_t MOST_WEIGHT = 127;
#elif defined(__AVX2__)
typedef uint8_t Packed;
constexpr int64_t MOST_WEIGHT = 63;
#else
typedef int16_t Packed;
constexpr int64_t MOST_WEIGHT = 127;
#endif

template <int VW>
struct IntegerDot {
  typedef typename Vector<VW>::integers V;
  static V add(V sum, uint32_t word, typename Vector<VW>::words k) {
    const V both = bits<V>(k);
    if (sizeof(Packed) == 2) {
      sum += static_cast<int16_t>(word) * (bits<V>(k << 16) >> 16);
      return sum + (static_cast<int32_t>(word) >> 16) * (both >> 16);
    }
    for (int i = 0; i < 4; ++i)
      sum += static_cast<int32_t>(word >> 8 * i & 0xff) *
             (bits<V>(k << (24 - 8 * i)) >> 24);
    return sum;
  }
};
#if defined(__AVX512VNNI__) && defined(__AVX512VL__)
template <>
struct IntegerDot<16> {
  typedef Vector<16>::integers V;
  static V add(V sum, uint32_t word, Vector<16>::words k) {
    return bits<V>(_mm512_dpbusd_epi32(bits<__m512i>(sum),
                                       _mm512_set1_epi32(word),
                                       bits<__m512i>(k)));
  }
};
template <>
struct IntegerDot<8> {
  typedef Vector<8>::integers V;
  static V add(V sum, uint32_t word, Vector<8>::words k) {
    return bits<V>(_mm256_dpbusd_epi32(bits<__m256i>(sum),
                                       _mm256_set1_epi32(word),
                                       bits<__m256i>(k)));
  }
};
#elif defined(__AVXVNNI__)
template <>
struct IntegerDot<8> {
  typedef Vector<8>::integers V;
  static V add(V sum, uint32_t word, Vector<8>::words k) {
    return bits<V>(_mm256_dpbusd_avx_epi32(bits<__m256i>(sum),
                                           _mm256_set1_epi32(word),
                                           bits<__m256i>(k)));
  }
};
#elif defined(__AVX2__)
template <>
struct IntegerDot<8> {
  typedef Vector<8>::integers V;
  static V add(V sum, uint32_t word, Vector<8>::words k) {
    const __m256i pairs =
        _mm256_maddubs_epi16(_mm256_set1_epi32(word), bits<__m256i>(k));
    return sum + bits<V>(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
  }
};
#if defined(__AVX512BW__)
template <>
struct IntegerDot<16> {
  typedef Vector<16>::integers V;
  static V add(V sum, uint32_t word, Vector<16>::words k) {
    const __m512i pairs =
        _mm512_maddubs_epi16(_mm512_set1_epi32(word), bits<__m512i>(k));
    return sum + bits<V>(_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
  }
};
#endif
#endif

struct Int8 {
  static constexpr int64_t PER_WORD = 4 / sizeof(Packed);
  // A product that is added by an instruction of its own needs registers.
  static constexpr int ACCUMULATORS = WIDE == 8 ? REGISTERS - 2 : REGISTERS;
  template <int VW>
  using sums = typename Vector<VW>::integers;
  template <int VW>
  static sums<VW> add(sums<VW> sum, uint32_t word, typename Vector<VW>::words k) {
    return IntegerDot<VW>::add(sum, word, k);
  }
  template <int VW>
  static typename Vector<VW>::floats finish(sums<VW> sum, const float* scale,
                                            const float* bias) {
    typedef typename Vector<VW>::floats V;
    return __builtin_convertvector(sum, V) * read<V>(scale) + read<V>(bias);
  }
  // What stands for 0.
  static uint32_t fill(const Format& format) {
    const uint32_t zero = static_cast<uint32_t>(format.zero);
    return zero * (sizeof(Packed) == 1 ? 0x01010101u : 0x00010001u);
  }
  static void pack(const Format& format, const char* from, int64_t count,
                   uint32_t* words) {
    Packed* to = reinterpret_cast<Packed*>(words);
    int64_t i = 0;
    if (format.type == UINT8) {
      const uint8_t* q = reinterpret_cast<const uint8_t*>(from);
      for (; i < count; ++i) to[i] = static_cast<Packed>(q[i]);
    } else {
      typedef Packed Some __attribute__((vector_size(8 * sizeof(Packed))));
      for (; i + 8 <= count; i += 8) {
        const auto q =
            quantize<8>(format, load<8>(format, from + i * format.bytes()));
        const Some some = __builtin_convertvector(q, Some);
        std::memcpy(to + i, &some, sizeof(some));
      }
      for (; i < count; ++i) {
        char eight[32] = {0};
        std::memcpy(eight, from + i * format.bytes(), format.bytes());
        to[i] =
            static_cast<Packed>(quantize<8>(format, load<8>(format, eight))[0]);
      }
    }
    // The last word's numbers that are not there meet weights of zero.
    for (; i % PER_WORD; ++i) to[i] = 0;
  }
};

}  // namespace
