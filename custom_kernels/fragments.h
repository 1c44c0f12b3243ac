// Where a lane's two elements of an 8 x 8 matrix lie, and the lanes that share its row.
#ifdef MSL_CUDA  // the tensor cores' accumulator layout
#define FRAG_ROW(lane) ((lane) / 4)
#define FRAG_COL(lane) ((lane) % 4 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 2
#else  // Apple's
#define FRAG_ROW(lane) ((lane) / 16 * 4 + (lane) / 2 % 4)
#define FRAG_COL(lane) ((lane) / 8 % 2 * 4 + (lane) % 2 * 2)
#define ROW_XOR_A 1
#define ROW_XOR_B 8
#endif
