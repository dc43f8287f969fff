namespace Qwen2Quant.Tests.Blocks;

/// <summary>
/// What a build of ggml without fused multiply-adds writes for <see cref="BlockData.Values"/> as rows of 512, with and without
/// <see cref="BlockData.Importance"/>: SHA-256 of 4 rows, and its first 20 digits of 1000 rows. IQ1_M without importance is the hash of the ggml that the
/// interoperability tests install: a later version added sums half by half (before, 1000 rows gave 6ed40af2aade015e9f5e).
/// </summary>
internal static class EncoderGoldens
{
    public sealed record Golden(string Type, bool HasImportance, string Hash, string LargeHashStart);

    public static IReadOnlyList<Golden> All { get; } =
    [
        new("F16", false, "af1d6596a3d69a90cdfc4e1ce7f8b0c6341e045bed1ccfb82cd5d0ffd1071fd1", "750e11e8283faead2fc5"),
        new("F16", true, "af1d6596a3d69a90cdfc4e1ce7f8b0c6341e045bed1ccfb82cd5d0ffd1071fd1", "750e11e8283faead2fc5"),
        new("BF16", false, "e709f910c132352131809050c88d17f38702630802205149b27d0351ada25b16", "41873f743479f08b7f7d"),
        new("BF16", true, "e709f910c132352131809050c88d17f38702630802205149b27d0351ada25b16", "41873f743479f08b7f7d"),
        new("Q4_0", false, "dfe08e533112eef307b575f23f5bdcef857d63bed3292c7ab4b8d68e7a69bff1", "7c14a4a252f7c669493a"),
        new("Q4_0", true, "7872f763e33fad103d1ad7bb6b03e200df69393791564b7faec6b625ff530c7f", "a5f66c9cf2daab22ef5f"),
        new("Q4_1", false, "208cc1aa1cac96aed1723756cc45d1fab0aa1a6d8e51d30233eabdf136637b5b", "551fa28f18f66439dfb6"),
        new("Q4_1", true, "4a37f11dc571fe20465d435288c1221d4fa851676222b695c6f1ee0f4e3fbc56", "b4456bc5f2d95e0b6bcd"),
        new("Q5_0", false, "1c0467ed93858de02d5576091e3402a879b1d8bc323025a6aa5cc3ab51c1ff68", "f9c28d83946950c7653c"),
        new("Q5_0", true, "fc7ba5ae4c670b091609cd4abff10953d36955743001109a4f79b2d3cc9972fc", "ca5dc551603e93b735aa"),
        new("Q5_1", false, "5b8f5969523025d6f78ebdd9668e52a826715a3b35b69d73b692c7028a56b449", "ec01bb702cb33c5e47ac"),
        new("Q5_1", true, "c553facad5ce108d5f022077cc24e3c79ead9166a0280abf30ef290c96322c78", "289621397a95e87e9a1f"),
        new("Q8_0", false, "f7796670858356f21d04bfb53ca06938f2d12af69fa90c9082273d035d9f3949", "474526d6685245511c0c"),
        new("Q8_0", true, "f7796670858356f21d04bfb53ca06938f2d12af69fa90c9082273d035d9f3949", "474526d6685245511c0c"),
        new("Q2_K", false, "975371dc12c29a23b5ed45aee3a1dd18d0205049d02d1b4166eb7d6d1c10e6b6", "507401448140bd2d1fd4"),
        new("Q2_K", true, "62bb2345e42035682b8dfe54b76a8c91485ac7199f18ca36a70e0393bb4e4ef1", "f109e537ce38568d1324"),
        new("Q3_K", false, "03a98f053c3dca7b22fcdb876ca7456fad5ef563f9568d539c29bd8c8bfcb31d", "79bcd7ef1d021dbd4900"),
        new("Q3_K", true, "98f4ef73cca4308c12e35de552f112d23754bc940663a2d45d93acce8f3b777f", "34dde6ae1894edb2432d"),
        new("Q4_K", false, "44d5eac0c8f498ac7a5ef14f27b30b327958e655ad39e40cd4ee830930014140", "748ecd37688558cde8c9"),
        new("Q4_K", true, "f71cb3b43be835ef137f35fcfbc8340a4c76908a4100056a8e675696be4b2771", "cbc7d144648b8fc78009"),
        new("Q5_K", false, "1dd93291d73cfe8fc03a0439904a0c06c1546f5acd5c70cb4b5c06e89be4f101", "0f2c8f3d70503abf63d4"),
        new("Q5_K", true, "eb75a38a7713c78a7e1d42311b400af023dceb717f97e1e96c34f0eb5f2b703d", "b43505fbefe1c204b45a"),
        new("Q6_K", false, "86fa71725e8bd3d732b1426c61fb8fcce54ea01188c11d6e39cdedaf3edcdae3", "7117f583c485e22e997e"),
        new("Q6_K", true, "2a0b8e029b31f37792e6d26523598dbe8f541bf2a8e05630859c5a65be825e38", "c4a5a729b2deffa2bd55"),
        new("IQ4_NL", false, "dee2237219deaad0198ee67c6deda33afd5f3525306211d940a8eebe6564a365", "62a65285d2d10d6c1259"),
        new("IQ4_NL", true, "46474dceeab0ad62d86d07549310bab14e3fe48feedfbdc99fda007e617c0ff6", "5286a4d77c650488c2b0"),
        new("IQ4_XS", false, "ae7921004223f7c412c58107e39473f3f7be1a751eead16f4dc1bd95b2e5384d", "da80894a49cedc91d6b2"),
        new("IQ4_XS", true, "7b165264c9690b591ab7fca5694bacbc4c3f9f650cbc5cdf89dc7c97b68a8e75", "c1e623f5124a932975f6"),
        new("TQ1_0", false, "5f580bd2af7a18a89a2df150a9563221c899ba62f12eceaf7382986d842ab7e6", "5159050e1f8cb2d8ca80"),
        new("TQ1_0", true, "5f580bd2af7a18a89a2df150a9563221c899ba62f12eceaf7382986d842ab7e6", "5159050e1f8cb2d8ca80"),
        new("TQ2_0", false, "99791447cb1b9603b5d523e203b2be2bba9ff33ae935c896af6a9054babcedfe", "aee52bb863abee3ac251"),
        new("TQ2_0", true, "99791447cb1b9603b5d523e203b2be2bba9ff33ae935c896af6a9054babcedfe", "aee52bb863abee3ac251"),
        new("MXFP4", false, "45164b31d262d142ccf8cc4a32a20984ddbc4605261e60a3a9222f623f0261bd", "adf973ed7c8a6ba82fd8"),
        new("MXFP4", true, "45164b31d262d142ccf8cc4a32a20984ddbc4605261e60a3a9222f623f0261bd", "adf973ed7c8a6ba82fd8"),
        new("NVFP4", false, "d9c4acb7cea3a6394c680a954048da82a8de0ad45b9dd090bba9813015c37710", "8fc7a777c7266d725709"),
        new("NVFP4", true, "d9c4acb7cea3a6394c680a954048da82a8de0ad45b9dd090bba9813015c37710", "8fc7a777c7266d725709"),
        new("IQ3_XXS", false, "a95188d39741c6598335bb736fa731102023e5d4fc0c84d6a8a2f923c95776c6", "e7e8a7fb18df21ea1497"),
        new("IQ3_XXS", true, "88a86b6848c68c965d5fe2725b2f2487fea49e5307c4124908ad5e50531e74fa", "c1af53d366cd727bdf8f"),
        new("IQ3_S", false, "8ceb00840348cef59c46946e19b3ddb76b6e403011b24f734c3e4112a1319a01", "a2a6e24d7c02fae3d94d"),
        new("IQ3_S", true, "ae2ffe556995af88a8993f5b24b5accacae7babec4737c72b6c5ef7003fcb05c", "59cfc9d9bbcbcc6a04ff"),
        new("IQ2_XXS", true, "1775f82fbdb851abd913524d8fe04ecd672f55462539a79a2259cf3fc723c03b", "c291ddc2d18eb392b86f"),
        new("IQ2_XS", true, "829fc159bba8843d19a81ff770a0ceba5d41f86602441b0ceb2bad32f45dedf4", "fd26c51e2dfab208499e"),
        new("IQ2_S", false, "0d361ee72ea20269654208f243547d27cb1e5ef64828af4df84edcb7f5fa0eb7", "ea16f4fca94a0955ed50"),
        new("IQ2_S", true, "154cecdb90e404763d427842b8215fc6b5782dc573a5c2739452900c7bdde6c5", "66d6b15648c7d5b9cec5"),
        new("IQ1_S", true, "b3c97167d7554403c81b3938a51406543b441182b8ffd86c7665fc793925f36f", "51c16ab57c136c70ab5e"),
        new("IQ1_M", false, "de9db2bbd658d57b703ae95bdab90fa5c9f38923d45fd46e116ee5cee611e241", "2b23c97c2c8dae5f273d"),
        new("IQ1_M", true, "97158731e295d116a599a78143f75d13edb2b2cd07646dfc83beeee9e667a911", "76431c5fea952f2efe3f"),
    ];
}
