func.func @matmul_bias_gelu(%lk: memref<?xi8>, %ws: memref<?xi8>, %a: memref<?xf16>, %b: memref<?xf16>, %bias: memref<?xf16>, %y: memref<?xf16>, %m: i64, %n: i64, %k: i64, %gx: i32, %gy: i32, %gz: i32, %px: i32, %py: i32, %pz: i32) attributes {SyncBlockLockArgIdx = 0 : i64, WorkspaceArgIdx = 1 : i64, global_kernel = "local", parallel_mode = "simd"} {
  %c63 = arith.constant 63 : index
  %c64 = arith.constant 64 : index
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %k_2 = arith.constant 0.0 : f32
  %k_3 = arith.constant 0.0 : f16
  %k_4 = arith.constant dense<0.5> : tensor<64x64xf32>
  %k_5 = arith.constant dense<1.0> : tensor<64x64xf32>
  %k_6 = arith.constant dense<0xFF7FFFFF> : tensor<64x64xf32>
  %k_7 = arith.constant dense<0.70710677> : tensor<64x64xf32>
  %m_1 = arith.index_cast %m : i64 to index
  %n_1 = arith.index_cast %n : i64 to index
  %k_1 = arith.index_cast %k : i64 to index
  %programs0 = arith.addi %c63, %n_1 : index
  %programs0_1 = arith.floordivsi %programs0, %c64 : index
  %programs1 = arith.addi %c63, %m_1 : index
  %programs1_1 = arith.floordivsi %programs1, %c64 : index
  %programs = arith.muli %programs0_1, %programs1_1 : index
  %block = arith.index_cast %pz : i32 to index
  %blocks = arith.index_cast %gz : i32 to index
  scf.for %program = %block to %programs step %blocks {
    %program0 = arith.remsi %program, %programs0_1 : index
    %rest = arith.divsi %program, %programs0_1 : index
    %v = arith.muli %program0, %c64 : index
    %v_1 = arith.muli %rest, %c64 : index
    %empty = tensor.empty() : tensor<64x64xf32>
    %full = linalg.fill ins(%k_2 : f32) outs(%empty : tensor<64x64xf32>) -> tensor<64x64xf32>
    %sum = scf.for %at = %c0 to %k_1 step %c64 iter_args(%acc = %full) -> (tensor<64x64xf32>) {
      %rest_1 = arith.subi %m_1, %v_1 : index
      %rest_2 = arith.minsi %rest_1, %c64 : index
      %rest_3 = arith.subi %rest_2, %c0 : index
      %rest_4 = arith.maxsi %rest_3, %c0 : index
      %at_1 = arith.muli %v_1, %k_1 : index
      %rest_5 = arith.subi %k_1, %at : index
      %rest_6 = arith.minsi %rest_5, %c64 : index
      %rest_7 = arith.subi %rest_6, %c0 : index
      %rest_8 = arith.maxsi %rest_7, %c0 : index
      %at_2 = arith.addi %at_1, %at : index
      %gm = memref.reinterpret_cast %a to offset: [%at_2], sizes: [64, 64], strides: [%k_1, 1] : memref<?xf16> to memref<64x64xf16, strided<[?, 1], offset: ?>>
      %local = memref.alloc() : memref<64x64xf16>
      %short = arith.cmpi slt, %rest_4, %c64 : index
      %short_1 = arith.cmpi slt, %rest_8, %c64 : index
      %short_2 = arith.ori %short, %short_1 : i1
      scf.if %short_2 {
        linalg.fill ins(%k_3 : f16) outs(%local : memref<64x64xf16>)
      }
      %part = memref.subview %gm[0, 0] [%rest_4, %rest_8] [1, 1] : memref<64x64xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[?, 1], offset: ?>>
      %into = memref.subview %local[0, 0] [%rest_4, %rest_8] [1, 1] : memref<64x64xf16> to memref<?x?xf16, strided<[64, 1]>>
      memref.copy %part, %into : memref<?x?xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[64, 1]>>
      %ta = bufferization.to_tensor %local restrict writable : memref<64x64xf16>
      %rest_9 = arith.subi %k_1, %at : index
      %rest_10 = arith.minsi %rest_9, %c64 : index
      %rest_11 = arith.subi %rest_10, %c0 : index
      %rest_12 = arith.maxsi %rest_11, %c0 : index
      %at_3 = arith.muli %at, %n_1 : index
      %rest_13 = arith.subi %n_1, %v : index
      %rest_14 = arith.minsi %rest_13, %c64 : index
      %rest_15 = arith.subi %rest_14, %c0 : index
      %rest_16 = arith.maxsi %rest_15, %c0 : index
      %at_4 = arith.addi %at_3, %v : index
      %gm_1 = memref.reinterpret_cast %b to offset: [%at_4], sizes: [64, 64], strides: [%n_1, 1] : memref<?xf16> to memref<64x64xf16, strided<[?, 1], offset: ?>>
      %local_1 = memref.alloc() : memref<64x64xf16>
      %short_3 = arith.cmpi slt, %rest_12, %c64 : index
      %short_4 = arith.cmpi slt, %rest_16, %c64 : index
      %short_5 = arith.ori %short_3, %short_4 : i1
      scf.if %short_5 {
        linalg.fill ins(%k_3 : f16) outs(%local_1 : memref<64x64xf16>)
      }
      %part_1 = memref.subview %gm_1[0, 0] [%rest_12, %rest_16] [1, 1] : memref<64x64xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[?, 1], offset: ?>>
      %into_1 = memref.subview %local_1[0, 0] [%rest_12, %rest_16] [1, 1] : memref<64x64xf16> to memref<?x?xf16, strided<[64, 1]>>
      memref.copy %part_1, %into_1 : memref<?x?xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[64, 1]>>
      %tb = bufferization.to_tensor %local_1 restrict writable : memref<64x64xf16>
      %next = linalg.matmul {input_precision = "ieee"} ins(%ta, %tb : tensor<64x64xf16>, tensor<64x64xf16>) outs(%acc : tensor<64x64xf32>) -> tensor<64x64xf32>
      scf.yield %next : tensor<64x64xf32>
    }
    %rest_17 = arith.subi %n_1, %v : index
    %rest_18 = arith.minsi %rest_17, %c64 : index
    %rest_19 = arith.subi %rest_18, %c0 : index
    %rest_20 = arith.maxsi %rest_19, %c0 : index
    %gm_2 = memref.reinterpret_cast %bias to offset: [%v], sizes: [64], strides: [1] : memref<?xf16> to memref<64xf16, strided<[1], offset: ?>>
    %local_2 = memref.alloc() : memref<64xf16>
    %short_6 = arith.cmpi slt, %rest_20, %c64 : index
    scf.if %short_6 {
      linalg.fill ins(%k_3 : f16) outs(%local_2 : memref<64xf16>)
    }
    %part_2 = memref.subview %gm_2[0] [%rest_20] [1] : memref<64xf16, strided<[1], offset: ?>> to memref<?xf16, strided<[1], offset: ?>>
    %into_2 = memref.subview %local_2[0] [%rest_20] [1] : memref<64xf16> to memref<?xf16, strided<[1]>>
    memref.copy %part_2, %into_2 : memref<?xf16, strided<[1], offset: ?>> to memref<?xf16, strided<[1]>>
    %bias_half = bufferization.to_tensor %local_2 restrict writable : memref<64xf16>
    %v_2 = arith.extf %bias_half : tensor<64xf16> to tensor<64xf32>
    %empty_1 = tensor.empty() : tensor<64x64xf32>
    %bias_wide = linalg.broadcast ins(%v_2 : tensor<64xf32>) outs(%empty_1 : tensor<64x64xf32>) dimensions = [0]
    %v_3 = arith.addf %sum, %bias_wide : tensor<64x64xf32>
    %v_4 = arith.maximumf %v_3, %k_6 : tensor<64x64xf32>
    %v_5 = arith.mulf %v_4, %k_7 : tensor<64x64xf32>
    %v_6 = math.erf %v_5 : tensor<64x64xf32>
    %v_7 = arith.addf %v_6, %k_5 : tensor<64x64xf32>
    %v_8 = arith.mulf %v_7, %k_4 : tensor<64x64xf32>
    %v_9 = arith.mulf %v_4, %v_8 : tensor<64x64xf32>
    %v_10 = arith.truncf %v_9 : tensor<64x64xf32> to tensor<64x64xf16>
    %rest_21 = arith.subi %m_1, %v_1 : index
    %rest_22 = arith.minsi %rest_21, %c64 : index
    %rest_23 = arith.subi %rest_22, %c0 : index
    %rest_24 = arith.maxsi %rest_23, %c0 : index
    %at_5 = arith.muli %v_1, %n_1 : index
    %rest_25 = arith.subi %n_1, %v : index
    %rest_26 = arith.minsi %rest_25, %c64 : index
    %rest_27 = arith.subi %rest_26, %c0 : index
    %rest_28 = arith.maxsi %rest_27, %c0 : index
    %at_6 = arith.addi %at_5, %v : index
    %gm_3 = memref.reinterpret_cast %y to offset: [%at_6], sizes: [64, 64], strides: [%n_1, 1] : memref<?xf16> to memref<64x64xf16, strided<[?, 1], offset: ?>>
    %kept = tensor.extract_slice %v_10[0, 0] [%rest_24, %rest_28] [1, 1] : tensor<64x64xf16> to tensor<?x?xf16>
    %part_3 = memref.subview %gm_3[0, 0] [%rest_24, %rest_28] [1, 1] : memref<64x64xf16, strided<[?, 1], offset: ?>> to memref<?x?xf16, strided<[?, 1], offset: ?>>
    bufferization.materialize_in_destination %kept in writable %part_3 : (tensor<?x?xf16>, memref<?x?xf16, strided<[?, 1], offset: ?>>) -> ()
  }
  return
}
