// What the Newton-Schulz kernels share: a 64 x 64 tile of a product, by 128 threads, 32 terms of its sums at a time.
constexpr constant int TILE = 64, DEPTH = 32;
constexpr constant int WIDE = TILE + 8, NARROW = DEPTH + 8;  // row lengths of blocks; 8 more keep rows in other banks
constexpr constant int BLOCK = TILE * NARROW;

// V elements that are read at once.
template <typename T, int V>
struct Chunk {
  typedef vec<T, V> type;
};
template <typename T>
struct Chunk<T, 1> {
  typedef T type;
};

// Of a factor whose sums run along its rows (ACROSS) or down its columns: DEPTH terms, from k0 on, of TILE lines from
// `first` on, with zeros outside the matrix (rows, columns). V divides columns.
template <typename T, int V, bool ACROSS>
METAL_FUNC void load_block(const device T* matrix, threadgroup T* block, int first, int k0, int rows, int columns,
                           int tid) {
  typedef typename Chunk<T, V>::type chunk;
  constexpr int WIDTH = ACROSS ? DEPTH : TILE, LD = ACROSS ? NARROW : WIDE;
  const int row0 = ACROSS ? first : k0, column0 = ACROSS ? k0 : first;
#pragma unroll 4
  for (int step = 0; step < TILE * DEPTH; step += 128 * V) {
    const int i = step + tid * V;
    const int row = row0 + i / WIDTH, column = column0 + i % WIDTH;
    chunk value = chunk(T(0.0f));
    if (row < rows && column < columns)
      value = *(const device chunk*)(matrix + row * columns + column);
    *(threadgroup chunk*)(block + i / WIDTH * LD + i % WIDTH) = value;
  }
}

// 8 lines and 8 terms of a block: terms are the columns of the left factor's fragment, the rows of the right one's.
template <typename T, bool ACROSS, bool LEFT>
METAL_FUNC simdgroup_matrix<T, 8, 8> piece(const threadgroup T* block, int line, int k) {
  simdgroup_matrix<T, 8, 8> result;
  const threadgroup T* corner = ACROSS ? block + line * NARROW + k : block + k * WIDE + line;
  simdgroup_load(result, corner, ACROSS ? NARROW : WIDE, ulong2(0, 0), ACROSS != LEFT);
  return result;
}

// A simdgroup's quarter of a tile: 32 x 32 of the product, as 4 x 4 fragments.
struct Quarter {
  simdgroup_matrix<float, 8, 8> sum[4][4];
  int line, other_line;  // its first ones in the left and the right block
  int row, column;       // of the lane's first element in the product

  METAL_FUNC Quarter(int tile_row, int tile_column, int simdgroup, int lane) {
    line = simdgroup / 2 * 32;
    other_line = simdgroup % 2 * 32;
    row = tile_row * TILE + line + FRAG_ROW(lane);
    column = tile_column * TILE + other_line + FRAG_COL(lane);
#pragma unroll
    for (int i = 0; i < 16; i++)
      sum[i / 4][i % 4] = make_filled_simdgroup_matrix<float, 8, 8>(0.0f);
  }
};

// Functions of their own: in Metal 4.1 a member function may not hand its members to functions of thread references.
template <typename T, bool LEFT_ACROSS, bool RIGHT_ACROSS>
METAL_FUNC void add_product(thread Quarter& quarter, const threadgroup T* left, const threadgroup T* right) {
#pragma unroll
  for (int k = 0; k < DEPTH; k += 8) {
    simdgroup_matrix<T, 8, 8> a[4], b[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      a[i] = piece<T, LEFT_ACROSS, true>(left, quarter.line + 8 * i, k);
      b[i] = piece<T, RIGHT_ACROSS, false>(right, quarter.other_line + 8 * i, k);
    }
#pragma unroll
    for (int i = 0; i < 16; i++)
      simdgroup_multiply_accumulate(quarter.sum[i / 4][i % 4], a[i / 4], b[i % 4], quarter.sum[i / 4][i % 4]);
  }
}

// sum = scale sum + factor matrix
template <typename T>
METAL_FUNC void combine(thread Quarter& quarter, float scale, float factor, const device T* matrix, int rows,
                        int columns) {
#pragma unroll
  for (int i = 0; i < 32; i++) {
    const int r = quarter.row + i / 8 * 8, c = quarter.column + i / 2 % 4 * 8 + i % 2;
    const float other = r < rows && c < columns ? float(matrix[r * columns + c]) : 0.0f;
    const float mine = quarter.sum[i / 8][i / 2 % 4].thread_elements()[i % 2];
    quarter.sum[i / 8][i / 2 % 4].thread_elements()[i % 2] = scale * mine + factor * other;
  }
}

// Into a row-major matrix, and its mirror image too if wanted.
template <typename T>
METAL_FUNC void store(thread Quarter& quarter, device T* matrix, int rows, int columns, bool mirrored) {
#pragma unroll
  for (int i = 0; i < 32; i++) {
    const int r = quarter.row + i / 8 * 8, c = quarter.column + i / 2 % 4 * 8 + i % 2;
    if (r < rows && c < columns) {
      const T value = T(quarter.sum[i / 8][i / 2 % 4].thread_elements()[i % 2]);
      matrix[r * columns + c] = value;
      if (mirrored)
        matrix[c * columns + r] = value;
    }
  }
}

// The lower triangle's tiles in order: (0, 0), (1, 0), (1, 1), (2, 0) and so on.
METAL_FUNC int2 lower_tile(int number) {
  int i = 0;
  while (number > i)
    number -= ++i;
  return int2(i, number);
}
