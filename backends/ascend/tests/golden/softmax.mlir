func.func @softmax(%lk: memref<?xi8>, %ws: memref<?xi8>, %x: memref<?xf32>, %y: memref<?xf32>, %rows: i64, %n: i64, %gx: i32, %gy: i32, %gz: i32, %px: i32, %py: i32, %pz: i32) attributes {SyncBlockLockArgIdx = 0 : i64, WorkspaceArgIdx = 1 : i64, global_kernel = "local", parallel_mode = "simd"} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c8 = arith.constant 8 : index
  %c256 = arith.constant 256 : index
  %k = arith.constant 0.0 : f32
  %k_1 = arith.constant 0xFF800000 : f32
  %rows_1 = arith.index_cast %rows : i64 to index
  %n_1 = arith.index_cast %n : i64 to index
  %program0 = arith.index_cast %pz : i32 to index
  %programs0 = arith.index_cast %gz : i32 to index
  %empty = tensor.empty() : tensor<8xf32>
  %full = linalg.fill ins(%k : f32) outs(%empty : tensor<8xf32>) -> tensor<8xf32>
  %empty_1 = tensor.empty() : tensor<8xf32>
  %full_1 = linalg.fill ins(%k_1 : f32) outs(%empty_1 : tensor<8xf32>) -> tensor<8xf32>
  %v = arith.muli %program0, %c8 : index
  %out:2 = scf.for %col = %c0 to %n_1 step %c256 iter_args(%m = %full_1, %l = %full) -> (tensor<8xf32>, tensor<8xf32>) {
    %rest = arith.subi %rows_1, %v : index
    %rest_1 = arith.minsi %rest, %c8 : index
    %rest_2 = arith.subi %rest_1, %c0 : index
    %rest_3 = arith.maxsi %rest_2, %c0 : index
    %at = arith.muli %v, %n_1 : index
    %rest_4 = arith.subi %n_1, %col : index
    %rest_5 = arith.minsi %rest_4, %c256 : index
    %rest_6 = arith.subi %rest_5, %c0 : index
    %rest_7 = arith.maxsi %rest_6, %c0 : index
    %at_1 = arith.addi %at, %col : index
    %gm = memref.reinterpret_cast %x to offset: [%at_1], sizes: [8, 256], strides: [%n_1, 1] : memref<?xf32> to memref<8x256xf32, strided<[?, 1], offset: ?>>
    %local = memref.alloc() : memref<8x256xf32>
    %short = arith.cmpi slt, %rest_3, %c8 : index
    %short_1 = arith.cmpi slt, %rest_7, %c256 : index
    %short_2 = arith.ori %short, %short_1 : i1
    scf.if %short_2 {
      linalg.fill ins(%k_1 : f32) outs(%local : memref<8x256xf32>)
    }
    %part = memref.subview %gm[0, 0] [%rest_3, %rest_7] [1, 1] : memref<8x256xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[?, 1], offset: ?>>
    %into = memref.subview %local[0, 0] [%rest_3, %rest_7] [1, 1] : memref<8x256xf32> to memref<?x?xf32, strided<[256, 1]>>
    memref.copy %part, %into : memref<?x?xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[256, 1]>>
    %t = bufferization.to_tensor %local restrict writable : memref<8x256xf32>
    %empty_2 = tensor.empty() : tensor<8xf32>
    %start = linalg.fill ins(%k_1 : f32) outs(%empty_2 : tensor<8xf32>) -> tensor<8xf32>
    %tile_max = linalg.reduce ins(%t : tensor<8x256xf32>) outs(%start : tensor<8xf32>) dimensions = [1] (%a: f32, %b: f32) {
      %ab = arith.maximumf %a, %b : f32
      linalg.yield %ab : f32
    }
    %v_1 = arith.maximumf %m, %tile_max : tensor<8xf32>
    %test = arith.cmpf oeq, %v_1, %full_1 : tensor<8xf32>
    %m_safe = arith.select %test, %full, %v_1 : tensor<8xi1>, tensor<8xf32>
    %empty_3 = tensor.empty() : tensor<8x256xf32>
    %m_wide = linalg.broadcast ins(%m_safe : tensor<8xf32>) outs(%empty_3 : tensor<8x256xf32>) dimensions = [1]
    %v_2 = arith.subf %t, %m_wide : tensor<8x256xf32>
    %v_3 = math.exp %v_2 : tensor<8x256xf32>
    %empty_4 = tensor.empty() : tensor<8xf32>
    %start_1 = linalg.fill ins(%k : f32) outs(%empty_4 : tensor<8xf32>) -> tensor<8xf32>
    %tile_sum = linalg.reduce ins(%v_3 : tensor<8x256xf32>) outs(%start_1 : tensor<8xf32>) dimensions = [1] (%a_1: f32, %b_1: f32) {
      %ab_1 = arith.addf %a_1, %b_1 : f32
      linalg.yield %ab_1 : f32
    }
    %v_4 = arith.subf %m, %m_safe : tensor<8xf32>
    %v_5 = math.exp %v_4 : tensor<8xf32>
    %v_6 = arith.mulf %l, %v_5 : tensor<8xf32>
    %v_7 = arith.addf %v_6, %tile_sum : tensor<8xf32>
    scf.yield %v_1, %v_7 : tensor<8xf32>, tensor<8xf32>
  }
  %empty_5 = tensor.empty() : tensor<8x256xf32>
  %max_wide = linalg.broadcast ins(%out#0 : tensor<8xf32>) outs(%empty_5 : tensor<8x256xf32>) dimensions = [1]
  %empty_6 = tensor.empty() : tensor<8x256xf32>
  %sum_wide = linalg.broadcast ins(%out#1 : tensor<8xf32>) outs(%empty_6 : tensor<8x256xf32>) dimensions = [1]
  scf.for %col2 = %c0 to %n_1 step %c256 {
    %rest_8 = arith.subi %rows_1, %v : index
    %rest_9 = arith.minsi %rest_8, %c8 : index
    %rest_10 = arith.subi %rest_9, %c0 : index
    %rest_11 = arith.maxsi %rest_10, %c0 : index
    %at_2 = arith.muli %v, %n_1 : index
    %rest_12 = arith.subi %n_1, %col2 : index
    %rest_13 = arith.minsi %rest_12, %c256 : index
    %rest_14 = arith.subi %rest_13, %c0 : index
    %rest_15 = arith.maxsi %rest_14, %c0 : index
    %at_3 = arith.addi %at_2, %col2 : index
    %gm_1 = memref.reinterpret_cast %x to offset: [%at_3], sizes: [8, 256], strides: [%n_1, 1] : memref<?xf32> to memref<8x256xf32, strided<[?, 1], offset: ?>>
    %local_1 = memref.alloc() : memref<8x256xf32>
    %short_3 = arith.cmpi slt, %rest_11, %c8 : index
    %short_4 = arith.cmpi slt, %rest_15, %c256 : index
    %short_5 = arith.ori %short_3, %short_4 : i1
    scf.if %short_5 {
      linalg.fill ins(%k_1 : f32) outs(%local_1 : memref<8x256xf32>)
    }
    %part_1 = memref.subview %gm_1[0, 0] [%rest_11, %rest_15] [1, 1] : memref<8x256xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[?, 1], offset: ?>>
    %into_1 = memref.subview %local_1[0, 0] [%rest_11, %rest_15] [1, 1] : memref<8x256xf32> to memref<?x?xf32, strided<[256, 1]>>
    memref.copy %part_1, %into_1 : memref<?x?xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[256, 1]>>
    %t2 = bufferization.to_tensor %local_1 restrict writable : memref<8x256xf32>
    %v_8 = arith.subf %t2, %max_wide : tensor<8x256xf32>
    %v_9 = math.exp %v_8 : tensor<8x256xf32>
    %v_10 = arith.divf %v_9, %sum_wide : tensor<8x256xf32>
    %rest_16 = arith.subi %rows_1, %v : index
    %rest_17 = arith.minsi %rest_16, %c8 : index
    %rest_18 = arith.subi %rest_17, %c0 : index
    %rest_19 = arith.maxsi %rest_18, %c0 : index
    %at_4 = arith.muli %v, %n_1 : index
    %rest_20 = arith.subi %n_1, %col2 : index
    %rest_21 = arith.minsi %rest_20, %c256 : index
    %rest_22 = arith.subi %rest_21, %c0 : index
    %rest_23 = arith.maxsi %rest_22, %c0 : index
    %at_5 = arith.addi %at_4, %col2 : index
    %gm_2 = memref.reinterpret_cast %y to offset: [%at_5], sizes: [8, 256], strides: [%n_1, 1] : memref<?xf32> to memref<8x256xf32, strided<[?, 1], offset: ?>>
    %kept = tensor.extract_slice %v_10[0, 0] [%rest_19, %rest_23] [1, 1] : tensor<8x256xf32> to tensor<?x?xf32>
    %part_2 = memref.subview %gm_2[0, 0] [%rest_19, %rest_23] [1, 1] : memref<8x256xf32, strided<[?, 1], offset: ?>> to memref<?x?xf32, strided<[?, 1], offset: ?>>
    bufferization.materialize_in_destination %kept in writable %part_2 : (tensor<?x?xf32>, memref<?x?xf32, strided<[?, 1], offset: ?>>) -> ()
  }
  return
}
