// The constants of <metal_math> and <metal_limits>, for the simulator, its static pass and CUDA.
#define MAXFLOAT 3.402823466e+38f
#define HUGE_VALF INFINITY
#define HALF_MAX ((half)65504.0f)
#define HALF_MIN ((half)6.103515625e-05f)
#define HALF_EPSILON ((half)9.765625e-04f)
#ifndef FLT_MAX
#define FLT_MAX 3.402823466e+38f
#define FLT_MIN 1.175494351e-38f
#define FLT_EPSILON 1.192092896e-07f
#define FLT_DIG 6
#define FLT_MANT_DIG 24
#define FLT_RADIX 2
#endif
#ifndef INT_MAX
#define CHAR_BIT 8
#define SCHAR_MAX 127
#define SCHAR_MIN (-128)
#define UCHAR_MAX 255
#define CHAR_MAX 127
#define CHAR_MIN (-128)
#define SHRT_MAX 32767
#define SHRT_MIN (-32768)
#define USHRT_MAX 65535
#define INT_MAX 2147483647
#define INT_MIN (-INT_MAX - 1)
#define UINT_MAX 4294967295u
#define LONG_MAX 9223372036854775807l
#define LONG_MIN (-LONG_MAX - 1l)
#define ULONG_MAX 18446744073709551615ul
#endif
#define M_PI_F 3.14159265358979323846f
#define M_PI_H ((half)M_PI_F)
#define M_PI_2_F 1.57079632679489661923f
#define M_PI_2_H ((half)M_PI_2_F)
#define M_PI_4_F 0.785398163397448309616f
#define M_PI_4_H ((half)M_PI_4_F)
#define M_1_PI_F 0.318309886183790671538f
#define M_1_PI_H ((half)M_1_PI_F)
#define M_2_PI_F 0.636619772367581343076f
#define M_2_PI_H ((half)M_2_PI_F)
#define M_2_SQRTPI_F 1.12837916709551257390f
#define M_2_SQRTPI_H ((half)M_2_SQRTPI_F)
#define M_SQRT2_F 1.41421356237309504880f
#define M_SQRT2_H ((half)M_SQRT2_F)
#define M_SQRT1_2_F 0.707106781186547524401f
#define M_SQRT1_2_H ((half)M_SQRT1_2_F)
#define M_E_F 2.71828182845904523536f
#define M_E_H ((half)M_E_F)
#define M_LOG2E_F 1.44269504088896340736f
#define M_LOG2E_H ((half)M_LOG2E_F)
#define M_LOG10E_F 0.434294481903251827651f
#define M_LOG10E_H ((half)M_LOG10E_F)
#define M_LN2_F 0.693147180559945309417f
#define M_LN2_H ((half)M_LN2_F)
#define M_LN10_F 2.30258509299404568402f
#define M_LN10_H ((half)M_LN10_F)
