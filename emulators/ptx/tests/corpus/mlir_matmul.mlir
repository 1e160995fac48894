// C[64, 64] = A[64, K] · B[K, 64] in f16 with f32 sums, K a multiple of 32; one block of four warps, each of which takes
// 16 rows. A and B tiles are copied asynchronously, the next while this one is multiplied.
module attributes {gpu.container_module} {
  gpu.module @m {
    memref.global "private" @sa : memref<2x64x40xf16, 3> {alignment = 16}
    memref.global "private" @sb : memref<2x32x72xf16, 3> {alignment = 16}
    gpu.func @mlir_matmul(%A: memref<64x?xf16>, %B: memref<?x64xf16>, %C: memref<64x64xf32>, %K: index) kernel {
      %sa = memref.get_global @sa : memref<2x64x40xf16, 3>
      %sb = memref.get_global @sb : memref<2x32x72xf16, 3>
      %t = gpu.thread_id x
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c2 = arith.constant 2 : index
      %c4 = arith.constant 4 : index
      %c8 = arith.constant 8 : index
      %c16 = arith.constant 16 : index
      %c32 = arith.constant 32 : index
      %c64 = arith.constant 64 : index
      %zero = arith.constant dense<0.0> : vector<2x2xf32>
      %warp = arith.divui %t, %c32 : index
      %lane = arith.remui %t, %c32 : index
      %m0 = arith.muli %warp, %c16 : index
      // 16-byte pieces: A has 64 rows of 4, B has 32 rows of 8; two of each for every thread.
      %ar = arith.divui %t, %c4 : index
      %ac0 = arith.remui %t, %c4 : index
      %ac = arith.muli %ac0, %c8 : index
      %ar2 = arith.addi %ar, %c32 : index
      %br = arith.divui %t, %c8 : index
      %bc0 = arith.remui %t, %c8 : index
      %bc = arith.muli %bc0, %c8 : index
      %br2 = arith.addi %br, %c16 : index
      %q0 = nvgpu.device_async_copy %A[%ar, %ac], %sa[%c0, %ar, %ac], 8 {bypassL1} : memref<64x?xf16> to memref<2x64x40xf16, 3>
      %q1 = nvgpu.device_async_copy %A[%ar2, %ac], %sa[%c0, %ar2, %ac], 8 {bypassL1} : memref<64x?xf16> to memref<2x64x40xf16, 3>
      %q2 = nvgpu.device_async_copy %B[%br, %bc], %sb[%c0, %br, %bc], 8 {bypassL1} : memref<?x64xf16> to memref<2x32x72xf16, 3>
      %q3 = nvgpu.device_async_copy %B[%br2, %bc], %sb[%c0, %br2, %bc], 8 {bypassL1} : memref<?x64xf16> to memref<2x32x72xf16, 3>
      %g0 = nvgpu.device_async_create_group %q0, %q1, %q2, %q3
      // Rows of A for ldmatrix x4: lanes 0-15 the left half, 16-31 the right; of B (x2, transposed): lanes 0-15.
      %lr = arith.remui %lane, %c16 : index
      %lh = arith.divui %lane, %c16 : index
      %lc = arith.muli %lh, %c8 : index
      %arow = arith.addi %m0, %lr : index
      %r:8 = scf.for %k = %c0 to %K step %c32
          iter_args(%a0 = %zero, %a1 = %zero, %a2 = %zero, %a3 = %zero, %a4 = %zero, %a5 = %zero, %a6 = %zero, %a7 = %zero)
          -> (vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>) {
        %ki = arith.divui %k, %c32 : index
        %cur = arith.remui %ki, %c2 : index
        %nxt = arith.subi %c1, %cur : index
        nvgpu.device_async_wait %g0 {numGroups = 0 : i32}
        gpu.barrier
        %kn = arith.addi %k, %c32 : index
        %more = arith.cmpi ult, %kn, %K : index
        scf.if %more {
          %ka = arith.addi %kn, %ac : index
          %kb = arith.addi %kn, %br : index
          %kb2 = arith.addi %kn, %br2 : index
          %w0 = nvgpu.device_async_copy %A[%ar, %ka], %sa[%nxt, %ar, %ac], 8 {bypassL1} : memref<64x?xf16> to memref<2x64x40xf16, 3>
          %w1 = nvgpu.device_async_copy %A[%ar2, %ka], %sa[%nxt, %ar2, %ac], 8 {bypassL1} : memref<64x?xf16> to memref<2x64x40xf16, 3>
          %w2 = nvgpu.device_async_copy %B[%kb, %bc], %sb[%nxt, %br, %bc], 8 {bypassL1} : memref<?x64xf16> to memref<2x32x72xf16, 3>
          %w3 = nvgpu.device_async_copy %B[%kb2, %bc], %sb[%nxt, %br2, %bc], 8 {bypassL1} : memref<?x64xf16> to memref<2x32x72xf16, 3>
          %g1 = nvgpu.device_async_create_group %w0, %w1, %w2, %w3
        }
        %s:8 = scf.for %kk = %c0 to %c32 step %c16
            iter_args(%b0 = %a0, %b1 = %a1, %b2 = %a2, %b3 = %a3, %b4 = %a4, %b5 = %a5, %b6 = %a6, %b7 = %a7)
            -> (vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>) {
          %acol = arith.addi %kk, %lc : index
          %fa = nvgpu.ldmatrix %sa[%cur, %arow, %acol] {numTiles = 4 : i32, transpose = false} : memref<2x64x40xf16, 3> -> vector<4x2xf16>
          %brow = arith.addi %kk, %lr : index
          %n1 = arith.constant 8 : index
          %n2 = arith.constant 16 : index
          %n3 = arith.constant 24 : index
          %n4 = arith.constant 32 : index
          %n5 = arith.constant 40 : index
          %n6 = arith.constant 48 : index
          %n7 = arith.constant 56 : index
          %f0 = nvgpu.ldmatrix %sb[%cur, %brow, %c0] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f1 = nvgpu.ldmatrix %sb[%cur, %brow, %n1] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f2 = nvgpu.ldmatrix %sb[%cur, %brow, %n2] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f3 = nvgpu.ldmatrix %sb[%cur, %brow, %n3] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f4 = nvgpu.ldmatrix %sb[%cur, %brow, %n4] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f5 = nvgpu.ldmatrix %sb[%cur, %brow, %n5] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f6 = nvgpu.ldmatrix %sb[%cur, %brow, %n6] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %f7 = nvgpu.ldmatrix %sb[%cur, %brow, %n7] {numTiles = 2 : i32, transpose = true} : memref<2x32x72xf16, 3> -> vector<2x2xf16>
          %d0 = nvgpu.mma.sync(%fa, %f0, %b0) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d1 = nvgpu.mma.sync(%fa, %f1, %b1) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d2 = nvgpu.mma.sync(%fa, %f2, %b2) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d3 = nvgpu.mma.sync(%fa, %f3, %b3) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d4 = nvgpu.mma.sync(%fa, %f4, %b4) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d5 = nvgpu.mma.sync(%fa, %f5, %b5) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d6 = nvgpu.mma.sync(%fa, %f6, %b6) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          %d7 = nvgpu.mma.sync(%fa, %f7, %b7) {mmaShape = [16, 8, 16]} : (vector<4x2xf16>, vector<2x2xf16>, vector<2x2xf32>) -> vector<2x2xf32>
          scf.yield %d0, %d1, %d2, %d3, %d4, %d5, %d6, %d7 : vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>
        }
        scf.yield %s#0, %s#1, %s#2, %s#3, %s#4, %s#5, %s#6, %s#7 : vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>, vector<2x2xf32>
      }
      %g = arith.divui %lane, %c4 : index
      %i = arith.remui %lane, %c4 : index
      %col = arith.muli %i, %c2 : index
      %row = arith.addi %m0, %g : index
      %row8 = arith.addi %row, %c8 : index
      %n_0 = arith.constant 0 : index
      %col_0 = arith.addi %col, %n_0 : index
      %col1_0 = arith.addi %col_0, %c1 : index
      %v_0_00 = vector.extract %r#0[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_0_00, %C[%row, %col_0] : memref<64x64xf32>
      %v_0_01 = vector.extract %r#0[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_0_01, %C[%row, %col1_0] : memref<64x64xf32>
      %v_0_10 = vector.extract %r#0[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_0_10, %C[%row8, %col_0] : memref<64x64xf32>
      %v_0_11 = vector.extract %r#0[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_0_11, %C[%row8, %col1_0] : memref<64x64xf32>
      %n_1 = arith.constant 8 : index
      %col_1 = arith.addi %col, %n_1 : index
      %col1_1 = arith.addi %col_1, %c1 : index
      %v_1_00 = vector.extract %r#1[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_1_00, %C[%row, %col_1] : memref<64x64xf32>
      %v_1_01 = vector.extract %r#1[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_1_01, %C[%row, %col1_1] : memref<64x64xf32>
      %v_1_10 = vector.extract %r#1[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_1_10, %C[%row8, %col_1] : memref<64x64xf32>
      %v_1_11 = vector.extract %r#1[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_1_11, %C[%row8, %col1_1] : memref<64x64xf32>
      %n_2 = arith.constant 16 : index
      %col_2 = arith.addi %col, %n_2 : index
      %col1_2 = arith.addi %col_2, %c1 : index
      %v_2_00 = vector.extract %r#2[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_2_00, %C[%row, %col_2] : memref<64x64xf32>
      %v_2_01 = vector.extract %r#2[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_2_01, %C[%row, %col1_2] : memref<64x64xf32>
      %v_2_10 = vector.extract %r#2[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_2_10, %C[%row8, %col_2] : memref<64x64xf32>
      %v_2_11 = vector.extract %r#2[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_2_11, %C[%row8, %col1_2] : memref<64x64xf32>
      %n_3 = arith.constant 24 : index
      %col_3 = arith.addi %col, %n_3 : index
      %col1_3 = arith.addi %col_3, %c1 : index
      %v_3_00 = vector.extract %r#3[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_3_00, %C[%row, %col_3] : memref<64x64xf32>
      %v_3_01 = vector.extract %r#3[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_3_01, %C[%row, %col1_3] : memref<64x64xf32>
      %v_3_10 = vector.extract %r#3[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_3_10, %C[%row8, %col_3] : memref<64x64xf32>
      %v_3_11 = vector.extract %r#3[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_3_11, %C[%row8, %col1_3] : memref<64x64xf32>
      %n_4 = arith.constant 32 : index
      %col_4 = arith.addi %col, %n_4 : index
      %col1_4 = arith.addi %col_4, %c1 : index
      %v_4_00 = vector.extract %r#4[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_4_00, %C[%row, %col_4] : memref<64x64xf32>
      %v_4_01 = vector.extract %r#4[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_4_01, %C[%row, %col1_4] : memref<64x64xf32>
      %v_4_10 = vector.extract %r#4[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_4_10, %C[%row8, %col_4] : memref<64x64xf32>
      %v_4_11 = vector.extract %r#4[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_4_11, %C[%row8, %col1_4] : memref<64x64xf32>
      %n_5 = arith.constant 40 : index
      %col_5 = arith.addi %col, %n_5 : index
      %col1_5 = arith.addi %col_5, %c1 : index
      %v_5_00 = vector.extract %r#5[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_5_00, %C[%row, %col_5] : memref<64x64xf32>
      %v_5_01 = vector.extract %r#5[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_5_01, %C[%row, %col1_5] : memref<64x64xf32>
      %v_5_10 = vector.extract %r#5[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_5_10, %C[%row8, %col_5] : memref<64x64xf32>
      %v_5_11 = vector.extract %r#5[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_5_11, %C[%row8, %col1_5] : memref<64x64xf32>
      %n_6 = arith.constant 48 : index
      %col_6 = arith.addi %col, %n_6 : index
      %col1_6 = arith.addi %col_6, %c1 : index
      %v_6_00 = vector.extract %r#6[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_6_00, %C[%row, %col_6] : memref<64x64xf32>
      %v_6_01 = vector.extract %r#6[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_6_01, %C[%row, %col1_6] : memref<64x64xf32>
      %v_6_10 = vector.extract %r#6[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_6_10, %C[%row8, %col_6] : memref<64x64xf32>
      %v_6_11 = vector.extract %r#6[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_6_11, %C[%row8, %col1_6] : memref<64x64xf32>
      %n_7 = arith.constant 56 : index
      %col_7 = arith.addi %col, %n_7 : index
      %col1_7 = arith.addi %col_7, %c1 : index
      %v_7_00 = vector.extract %r#7[0, 0] : f32 from vector<2x2xf32>
      memref.store %v_7_00, %C[%row, %col_7] : memref<64x64xf32>
      %v_7_01 = vector.extract %r#7[0, 1] : f32 from vector<2x2xf32>
      memref.store %v_7_01, %C[%row, %col1_7] : memref<64x64xf32>
      %v_7_10 = vector.extract %r#7[1, 0] : f32 from vector<2x2xf32>
      memref.store %v_7_10, %C[%row8, %col_7] : memref<64x64xf32>
      %v_7_11 = vector.extract %r#7[1, 1] : f32 from vector<2x2xf32>
      memref.store %v_7_11, %C[%row8, %col1_7] : memref<64x64xf32>
      gpu.return
    }
  }
}
