"""ICHAnalysis, the module of 3D Slicer: its thin classes. What they are made of is in ICHAnalysisPanel."""

# Annotations are not postponed here: the parameter node wrapper reads them as types when the class is made.

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import slicer
from slicer import (
    vtkMRMLMarkupsFiducialNode,
    vtkMRMLPlotChartNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
    vtkMRMLTableNode,
)
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

if not (Path(__file__).parent / "ICHAnalysisLib").is_dir() and str(Path(__file__).parents[1]) not in sys.path:
    sys.path.append(str(Path(__file__).parents[1]))  # a source checkout: the library lies beside this folder

if TYPE_CHECKING:
    from ICHAnalysisLib.analysis import Analysis


class ICHAnalysis(ScriptedLoadableModule):
    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("ICH Analysis")
        parent.categories = [
            translate("qSlicerAbstractCoreModule", name) for name in ("Segmentation", "Quantification")
        ]
        parent.dependencies = []
        parent.contributors = ["ICHAnalysis contributors"]
        parent.helpText = _(
            "Finds, outlines, measures and places intracerebral hemorrhage on non-contrast head CT, automatically or "
            "from boxes and points. Research use only, not a medical device; the networks that ship with it learned "
            "from simulated hemorrhage alone. See the tutorial and the recipes in the folder docs of the module."
        )
        parent.acknowledgementText = _(
            "Built on the networks ICH-SCNet (Yu et al.), DTViT (Fan et al.) and the volume network of Gong et al. "
            "(Frontiers in Neuroscience 2023, doi:10.3389/fnins.2023.1118340)."
        )
        slicer.app.connect("startupCompleted()", register_with_application)


def register_with_application() -> None:
    """Add the simulated demo scan to the Sample Data module, and our layout to those that scenes may name."""
    from ICHAnalysisPanel import layout, sample_data

    sample_data.register(Path(__file__).parent)
    layout.register()


@parameterNodeWrapper
class ICHAnalysisParameterNode:
    """What the panel keeps in the scene. No clinical value is among it."""

    inputVolume: vtkMRMLScalarVolumeNode
    positivePoints: vtkMRMLMarkupsFiducialNode
    negativePoints: vtkMRMLMarkupsFiducialNode
    updateOnChange: bool = True
    outputSegmentation: vtkMRMLSegmentationNode
    referenceSegmentation: vtkMRMLSegmentationNode
    referenceSegment: str
    storeClinical: bool = False
    device: Annotated[str, Choice(["auto", "cpu", "cuda", "mps"])] = "auto"
    weightsFolder: str
    maskThreshold: Annotated[float, WithinRange(0.05, 0.95)] = 0.5
    heatmapWanted: bool = True
    intervalsWanted: bool = True
    linesWanted: bool = True
    acceptQuestions: bool = False
    simulatedPrognosis: bool = False
    resultTable: vtkMRMLTableNode
    sliceTable: vtkMRMLTableNode
    chart: vtkMRMLPlotChartNode
    heatmap: vtkMRMLScalarVolumeNode
    lesionLabels: vtkMRMLMarkupsFiducialNode
    batchTable: vtkMRMLTableNode
    analysisJson: str


class ICHAnalysisWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.panel: Any = None
        self.batch: Any = None
        self.shortcuts: list[Any] = []

    def setup(self) -> None:
        from ICHAnalysisPanel.batch_section import BatchSection
        from ICHAnalysisPanel.panel import Panel
        from ICHAnalysisPanel.shortcuts import make_shortcuts

        ScriptedLoadableModuleWidget.setup(self)
        widget = slicer.util.loadUI(self.resourcePath("UI/ICHAnalysis.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = ICHAnalysisLogic()
        self.panel = Panel(self.ui)
        self.batch = BatchSection(self.ui, self.panel.options, lambda: self.panel.ensure_dependencies())
        self.shortcuts = make_shortcuts(widget, self.panel)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self.removeObservers()
        self.panel.close()
        self.batch.close()

    def enter(self) -> None:
        self.initializeParameterNode()
        for shortcut in self.shortcuts:
            shortcut.enabled = True

    def exit(self) -> None:
        for shortcut in self.shortcuts:
            shortcut.enabled = False

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        self._attach(None)

    def onSceneEndClose(self, _caller: Any, _event: Any) -> None:
        self.initializeParameterNode()

    def onSceneEndImport(self, _caller: Any, _event: Any) -> None:
        self._attach(None)  # the loaded scene has put other values into the same node
        self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        self._attach(self.logic.getParameterNode())

    def _attach(self, parameters: Any) -> None:
        self.panel.attach(parameters)
        self.batch.attach(parameters)


class ICHAnalysisLogic(ScriptedLoadableModuleLogic):
    """For the Python console and other modules; needs no panel. Recipes: docs/recipes.md."""

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        from ICHAnalysisPanel.logic import AnalysisService

        self.service = AnalysisService()

    def getParameterNode(self) -> ICHAnalysisParameterNode:
        return ICHAnalysisParameterNode(super().getParameterNode())

    def analyze(
        self,
        inputVolume: Any,
        boxes: Sequence[Any] = (),
        points: Any = None,
        clinical: dict[str, Any] | None = None,
        outputSegmentation: Any = None,
        negativePoints: Any = None,
        text: str | None = None,
        options: Any = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> "Analysis":
        """Analyze a volume node, or a file or folder, and return its Analysis; blocks until it is done.

        boxes: ROI nodes or (R0, A0, S0, R1, A1, S1) in mm. points, negativePoints: point lists or (R, A, S) triples.
        clinical: fields such as {"age": 67, "gcs": 12}. With a node, the outline goes to outputSegmentation (a new one
        where None); the nodes of the results are in `self.results`, whose "volume" is a hardened copy where a
        transform above the node bends its slices. With a path nothing is added to the scene.
        Raises UsageError for wrong arguments and InputBlockedError, with its findings, for a scan that cannot be used.
        """
        from ICHAnalysisPanel import logic, segments
        from ICHAnalysisPanel.dependencies import ensure
        from ICHAnalysisPanel.volume_nodes import straight

        ensure()
        prompts = logic.prompts_of(boxes, points, negativePoints)
        if isinstance(inputVolume, (str, Path)):
            return self.service.analyze_file(inputVolume, prompts, clinical, text, options, progress)
        inputVolume = straight(inputVolume, self.service.look_up)
        outcome, session = self.service.analyze_node(inputVolume, prompts, clinical, text, options, progress)
        segmentation = logic.output_segmentation(outputSegmentation, inputVolume)
        segments.write_labels(segmentation, inputVolume, outcome.mask)
        segmentation.CreateClosedSurfaceRepresentation()
        nodes = logic.write_results(outcome, inputVolume, session.source, segmentation, {})
        self.results = {"volume": inputVolume, "segmentation": segmentation, **nodes}
        return outcome.analysis

    def batch(
        self,
        folderOrNodes: Any,
        outputFolder: str | Path,
        options: Any = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> list[dict[str, Any]]:
        """Analyze every scan of a folder or CSV, or a list of volume nodes; resumes where it was stopped.

        Writes outputFolder/cases.csv and the files of each case; returns the rows.
        """
        from ICHAnalysisPanel.dependencies import ensure

        ensure()
        return self.service.batch(folderOrNodes, outputFolder, options, progress)

    def agreement(
        self, rowsOrFolder: Any, method: str = "Outline", reference: str = "ABC/2", referenceFile: Any = None
    ) -> Any:
        """How far two measures of a batch agree, with a Bland-Altman and a scatter plot as nodes.

        rowsOrFolder: what `batch` returned, or its output folder. referenceFile: a CSV with case_id and columns of
        volumes in mL; each column can be the reference. Raises UsageError below three cases with both.
        """
        from ICHAnalysisPanel import batch_nodes

        is_folder = isinstance(rowsOrFolder, (str, Path))
        rows = batch_nodes.read_rows(rowsOrFolder) if is_folder else rowsOrFolder
        return batch_nodes.show_agreement(batch_nodes.volumes_of(rows, referenceFile), method, reference)

    def compareVolumes(self, segmentationNode: Any, analysis: Any, segmentId: str | None = None) -> Any:
        """A table node of the analysis' volumes beside those of a segment, as Slicer measures it.

        segmentationNode: a node, or the path of a .seg.nrrd, .nrrd or .nii.gz file, which is then added to the scene.
        analysis: an Analysis, or the path of an analysis.json. segmentId: the first segment where None. Raises
        UsageError where there is no such segment or file.
        """
        from ICHAnalysisPanel.logic import compare

        return compare(segmentationNode, analysis, segmentId)


class ICHAnalysisTest(ScriptedLoadableModuleTest):
    """The smallest check in a running application; the tests proper are in Testing/module."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(0)

    def runTest(self) -> None:
        self.setUp()
        self.test_logic_has_a_parameter_node()

    def test_logic_has_a_parameter_node(self) -> None:
        parameters = ICHAnalysisLogic().getParameterNode()
        assert parameters.inputVolume is None
        assert parameters.device == "auto"
