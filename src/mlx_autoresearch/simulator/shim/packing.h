// <metal_pack>, included where a kernel names such a function: components of 8 and 16 bits in a word, the first lowest.
// Its static pass takes this without the bodies (MSL_BODY).
#pragma once

namespace metal {
namespace detail {
// float from and to a normalised integer of `bits` bits; sRGB's curve both ways.
template <int bits> inline float from_unorm(uint x, int i) MSL_BODY({
  return float(x >> i * bits & ((1u << bits) - 1)) / float((1u << bits) - 1);
})
template <int bits> inline float from_snorm(uint x, int i) MSL_BODY({
  return fmax(float(int(x << (32 - bits * (i + 1))) >> (32 - bits)) / float((1u << (bits - 1)) - 1), -1.0f);
})
template <int bits> inline uint to_unorm(float x, int i) MSL_BODY({
  return uint(rint(saturate(x) * float((1u << bits) - 1))) << i * bits;
})
template <int bits> inline uint to_snorm(float x, int i) MSL_BODY({
  const int n = int(rint(clamp(x, -1.0f, 1.0f) * float((1u << (bits - 1)) - 1)));
  return (uint(n) & ((1u << bits) - 1)) << i * bits;
})
template <int bits> inline float from_srgb(uint x, int i) MSL_BODY({
  const float c = from_unorm<bits>(x, i);
  return i == 3 ? c : c <= 0.04045f ? c / 12.92f : pow((c + 0.055f) / 1.055f, 2.4f);
})
template <int bits> inline uint to_srgb(float x, int i) MSL_BODY({
  const float c = saturate(x);
  return to_unorm<bits>(i == 3 ? c : c < 0.0031308f ? 12.92f * c : 1.055f * pow(c, 1.0f / 2.4f) - 0.055f, i);
})
}  // namespace detail

#define MSL_PACK(T, kind, format, n, bits)                                        \
  inline vec<T, n> unpack_##format##_to_##T(uint x) MSL_BODY({                    \
    vec<T, n> r;                                                                  \
    for (int i = 0; i < n; i++) r.v[i] = T(detail::from_##kind<bits>(x, i));      \
    return r;                                                                     \
  })                                                                              \
  inline uint pack_##T##_to_##format(vec<T, n> x) MSL_BODY({                      \
    uint r = 0;                                                                   \
    for (int i = 0; i < n; i++) r |= detail::to_##kind<bits>(float(x.v[i]), i);   \
    return r;                                                                     \
  })
#define MSL_PACKS(T)                                                              \
  MSL_PACK(T, unorm, unorm4x8, 4, 8) MSL_PACK(T, snorm, snorm4x8, 4, 8)           \
  MSL_PACK(T, unorm, unorm2x16, 2, 16) MSL_PACK(T, snorm, snorm2x16, 2, 16)       \
  MSL_PACK(T, srgb, srgb_unorm4x8, 4, 8)                                          \
  inline vec<T, 4> unpack_unorm4x8_srgb_to_##T(uint x) MSL_BODY({ return unpack_srgb_unorm4x8_to_##T(x); })
MSL_PACKS(float) MSL_PACKS(half)
#undef MSL_PACKS
#undef MSL_PACK
}  // namespace metal
